"""Layout: operators that only look at maps in another way, or put them side by side: no number changes."""

from __future__ import annotations

import operator
from typing import Any

from torch.fx import Node

from prunekit.sparse.engine.found import Found, Rule, aten, operands
from prunekit.sparse.engine.maps import Kind
from prunekit.sparse.engine.views import View, narrow, permute, reshape, whole


def _moved(found: Found, node: Node) -> View | None:
    """Dimensions in another order, or counted off in another way."""
    view = found.view(operands(node)[0])
    if view is None:
        return None
    sizes, target = tuple(node.meta["val"].shape), node.target
    if target is aten.permute.default:
        return permute(view, [axis % len(view.dims) for axis in operands(node)[1]])
    if target in (aten.transpose.int, aten.t.default):
        order = list(range(len(view.dims)))
        a, b = (0, len(order) - 1) if target is aten.t.default else (operands(node)[1], operands(node)[2])
        order[a], order[b] = order[b], order[a]
        return permute(view, order)
    if target is aten.expand.default and sizes != view.shape():
        return None
    return view if sizes == view.shape() else reshape(view, sizes)


def _split(found: Found, node: Node) -> list[View | None] | None:
    view = found.view(operands(node)[0])
    if view is None:
        return None
    dim = (operands(node)[2] if len(operands(node)) > 2 else 0) % len(view.dims)
    size, total = operands(node)[1], view.shape()[dim]
    lengths = [min(size, total - at) for at in range(0, total, size)] if isinstance(size, int) else list(size)
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    return [narrow(view, dim, start, length) for start, length in zip(starts, lengths, strict=True)]


def _sliced(found: Found, node: Node) -> View | None:
    view = found.view(operands(node)[0])
    given: list[Any] = [*node.args[1:], *(0, None, None, 1)[len(node.args) - 1 :]]
    dim, start, end, step = given
    if view is None or step != 1:
        return None
    total = view.shape()[dim]
    start, end, _ = slice(start, end).indices(total)
    return narrow(view, dim % len(view.dims), start, end - start) if end > start else None


def _selected(found: Found, node: Node) -> View | None:
    view = found.view(operands(node)[0])
    if view is None:
        return None
    dim, index = operands(node)[1] % len(view.dims), operands(node)[2]
    part = narrow(view, dim, index % view.shape()[dim], 1)
    return None if part is None else View(part.map, part.start, (*part.dims[:dim], *part.dims[dim + 1 :]))


def _item(found: Found, node: Node) -> View | None:
    parts, index = found.views.get(operands(node)[0]), operands(node)[1]
    if isinstance(parts, list):
        part: View | None = parts[index]
        return part
    return None


def _joined(found: Found, node: Node) -> View | None:
    """Channels of maps after one another."""
    parts, dim = operands(node)[0], (*operands(node)[1:], 0)[0]
    views = [found.standard(part) for part in parts]
    if dim not in {1, -3} or len({part.meta["val"].shape[2:] for part in parts}) > 1:
        return None
    made = views[0]
    for view in views[1:]:
        if made is None or view is None:
            return None
        channels = made.channels + view.channels
        joined = found.new(made, Kind.JOIN, [made, view], channels, inputs=made.channels)
        made = View(joined.map, 0, whole(joined.map.shape, channels))
        found.origin[made.map] = {node}
    return made


LAYOUT: dict[Any, Rule] = {
    **dict.fromkeys(
        (
            *(aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.permute.default),
            *(aten.transpose.int, aten.t.default, aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims),
            *(aten.expand.default, aten.clone.default, aten.alias.default, aten.detach.default),
        ),
        _moved,
    ),
    aten.split.Tensor: _split,
    aten.split_with_sizes.default: _split,
    aten.slice.Tensor: _sliced,
    aten.select.int: _selected,
    operator.getitem: _item,
    aten.cat.default: _joined,
}
