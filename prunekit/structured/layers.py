"""What layers with weights do to channels: convolutions, linear layers, products of values, attention, norms."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from prunekit.structured.slots import Track, Tracks
from prunekit.structured.walk import Labels, Value, Walk, is_tensor
from prunekit.trace import shape_of


def elementwise(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """Any function of the entries at one place; shapes are broadcast."""
    operands = [each for each in node.all_input_nodes if is_tensor(each)]
    rank = len(shape_of(node))
    return walk.combine([(each, _from_the_end(each, rank)) for each in operands], range(rank))


def convolution(walk: Walk, node: Node, given: dict[str, Any], *, transposed: bool = False) -> Value:
    """Convolutions, depthwise and grouped ones too; groups must stay equally large."""
    x, weight, bias, groups = given["input"], given["weight"], given["bias"], given["groups"]
    if weight not in walk.stored and groups > 1:
        walk.keep_inputs(node)
        return ()
    spatial = len(shape_of(weight)) - 2
    axis = len(shape_of(x)) - spatial - 1
    for_x: list[Any] = ["b"] * axis + ["i", *range(spatial)]
    out: list[Any] = ["b"] * axis + ["o", *range(spatial)]
    kernel = [("k", each) for each in range(spatial)]
    collapse(walk, x, range(axis + 1, axis + 1 + spatial))
    channels, (rows, columns) = shape_of(x)[axis], shape_of(weight)[:2]
    outputs = columns * groups if transposed else rows
    operands: list[tuple[Node, Labels]] = [(bias, ["o"])] if bias is not None else []
    if groups == channels == outputs:
        depthwise = ["o", "one", *kernel]
        return walk.combine([(x, [*for_x[:axis], "o", *for_x[axis + 1 :]]), (weight, depthwise), *operands], out)
    if groups == 1:
        labels = ["i", "o", *kernel] if transposed else ["o", "i", *kernel]
        return walk.combine([(x, for_x), (weight, labels), *operands], out)
    if transposed:
        walk.keep_inputs(node)
        return ()
    return _grouped(walk, node, given, axis)


def _grouped(walk: Walk, node: Node, given: dict[str, Any], axis: int) -> Tracks:
    """A position within its group is one column of the weight for all groups."""
    x, weight, bias, groups = given["input"], given["weight"], given["bias"], given["groups"]
    rows, columns = shape_of(weight)[:2]
    name = walk.stored[weight]
    outputs, inputs = walk.axis(name, 0, rows), walk.axis(name, 1, columns)
    for axis_of_kernel, size in enumerate(shape_of(weight)[2:], 2):
        walk.slots.keep(walk.axis(name, axis_of_kernel, size))
    known = [track for track in walk.tracks(x) if track.axes == (axis,)]
    if known:
        walk.slots.couple(known[0].slots.reshape(groups, columns), inputs)
    else:
        walk.keep(x)
        walk.slots.keep(inputs)
    walk.slots.rectangle(outputs.reshape(groups, rows // groups))
    if bias in walk.stored:
        walk.slots.couple(walk.axis(walk.stored[bias], 0, rows), outputs)
    elif bias is not None:
        walk.keep(bias)
        walk.slots.keep(outputs)
    return (Track((axis,), outputs),)


def transposed_convolution(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """A transposed convolution: its weight has inputs first."""
    return convolution(walk, node, given, transposed=True)


def linear(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """A linear layer over the last axis."""
    x, weight, bias = given["input"], given["weight"], given["bias"]
    if len(shape_of(weight)) != 2:
        walk.keep_inputs(node)
        return ()
    before = list(range(len(shape_of(x)) - 1))
    operands: list[tuple[Node, Labels]] = [(x, [*before, "i"]), (weight, ["o", "i"])]
    return walk.combine([*operands, *([(bias, ["o"])] if bias is not None else [])], [*before, "o"])


def embedding(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """Rows of a table, by their numbers; all rows stay."""
    before = list(range(len(shape_of(node)) - 1))
    return walk.combine([(given["indices"], before), (given["weight"], ["row", "o"])], [*before, "o"])


def product(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """``matmul``, ``mm``, ``bmm`` and those that add a third operand."""
    tensors = [each for each in node.args if isinstance(each, Node)]
    one, other = tensors[-2:]
    out = _from_the_end(node, len(shape_of(node)))
    if len(shape_of(one)) < 2 or len(shape_of(other)) < 2:
        walk.keep_inputs(node)
        return ()
    rank = len(out)
    for_one, for_other = _from_the_end(one, rank), _from_the_end(other, rank)
    for_one[-1] = for_other[-2] = "summed"
    added = [(each, _from_the_end(each, rank)) for each in tensors[:-2]]
    return walk.combine([*added, (one, for_one), (other, for_other)], out)


def einsum(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """Sums of products by their letters."""
    equation, operands = given["equation"].replace(" ", ""), given["tensors"]
    left, arrow, right = equation.partition("->")
    if not arrow or "." in equation:
        walk.keep_inputs(node)
        return ()
    return walk.combine(list(zip(operands, map(list, left.split(",")), strict=True)), list(right))


def attention(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """Scaled dot products of queries and keys, softmax, and the values that they choose."""
    query, key, value = given["query"], given["key"], given["value"]
    before: list[Any] = list(range(len(shape_of(query)) - 2))
    if is_tensor(given["attn_mask"]):
        walk.keep(given["attn_mask"])
    if given["scale"] is None:  # the products are divided by the root of a head's width
        for track in walk.tracks(query):
            if track.axes[-1] == len(before) + 1:
                walk.slots.mix(track.slots)
    operands = [(query, [*before, "n", "d"]), (key, [*before, "m", "d"]), (value, [*before, "m", "e"])]
    return walk.combine(operands, [*before, "n", "e"])


def batch_norm(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """Batch norm by running statistics, and instance norm: every channel by itself."""
    x, rank = given["input"], len(shape_of(given["input"]))
    own = [given.get(name) for name in ("weight", "bias", "running_mean", "running_var")]
    tracks = walk.combine([(x, range(rank)), *((each, [1]) for each in own if each is not None)], range(rank))
    return [tracks, (), ()] if isinstance(node.meta["val"], (tuple, list)) else tracks


def layer_norm(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """A norm over the last axes: they are mixed, and the module says how long they are."""
    x, rank = given["input"], len(shape_of(given["input"]))
    over = len(given["normalized_shape"])
    own = [(each, range(rank - over, rank)) for each in (given["weight"], given["bias"]) if each is not None]
    tracks = walk.combine([(x, range(rank)), *own], range(rank))
    for track in tracks:
        if track.axes[-1] >= rank - over:
            walk.slots.mix(track.slots)
            if over > 1 or len(track.axes) > 1:
                walk.slots.keep(track.slots)  # no module can be told of such a shape
            walk.count(node, "normalized_shape", track.slots)
    return tracks


def group_norm(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """A norm over groups of channels, which must stay equally large."""
    x, rank = given["input"], len(shape_of(given["input"]))
    own = [(each, [1]) for each in (given["weight"], given["bias"]) if each is not None]
    tracks = walk.combine([(x, range(rank)), *own], range(rank))
    for track in tracks:
        if track.axes == (1,):
            walk.slots.mix(track.slots)
            walk.slots.rectangle(track.slots.reshape(given["num_groups"], -1))
            walk.count(node, "num_channels", track.slots)
    return tracks


def prelu(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """A slope for each channel, or one for all."""
    x, slope, rank = given["self"], given["weight"], len(shape_of(given["self"]))
    return walk.combine([(x, range(rank)), (slope, [1] if shape_of(slope)[0] > 1 else ["one"])], range(rank))


def collapse(walk: Walk, node: Node, axes: range) -> None:
    """Let whatever lies along pixels, say after a shuffle written out by hand, go together."""
    tracks = walk.tracks(node)
    if not any(set(track.axes) & set(axes) for track in tracks):
        return
    if node in walk.stored:
        for track in tracks:
            if track.axes[0] in axes:
                walk.slots.keep(track.slots)
        return
    after = []
    for track in tracks:
        left: Track | None = track
        for axis in set(track.axes) & set(axes):
            left = walk.slots.collapse(left, axis) if left is not None else None
        after += [left] if left is not None else []
    walk.values[node] = tuple(after)


def _from_the_end(node: Node, rank: int) -> list[Any]:
    return list(range(rank - len(shape_of(node)), rank))
