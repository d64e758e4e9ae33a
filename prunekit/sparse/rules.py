"""What operators without weights do to channels, and the table of all rules.

A rule returns the channels of the operator's result, or None for "I do not know". What no rule knows keeps all its
inputs whole: a norm over channels, a softmax, a product of activations. There a channel of zeros is not an absent one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch.fx import Node

from prunekit.sparse import layers
from prunekit.sparse.channels import Channels, Flow, Found
from prunekit.trace import operator_of, shape_of

Rule = Callable[[Flow, Node, dict[str, Any]], Found]


def _same(flow: Flow, node: Node, given: dict[str, Any]) -> Found:
    """Copies."""
    return flow.find(given["self"]) if node.meta["val"].is_floating_point() else None


def _elementwise(flow: Flow, node: Node, given: dict[str, Any]) -> Found:
    """Any function of one channel of each operand; the axis is counted from the end, as broadcasting does."""
    operands = [operand for operand in node.args if isinstance(operand, Node)]
    if len(operands) < len(node.all_input_nodes) or not node.meta["val"].is_floating_point():
        return None
    first = sorted(operands, key=lambda operand: operand in flow.tensors)  # activations say which axis, not scales
    known = [(found.axis - len(shape_of(operand)), found) for operand in first if (found := flow.find(operand))]
    if not known:
        return None
    axis = next((axis for axis, found in known if len(found.slots) > 1), known[0][0])
    size = shape_of(node)[axis]
    aligned = {operand: _aligned(flow, operand, axis, size) for operand in operands}
    main = next(found for found in aligned.values() if len(found.slots) == size)
    for found in aligned.values():
        if len(found.slots) == size:
            flow.couple(main.slots, found.slots)
    constants = {operand: found.constant.expand(size) for operand, found in aligned.items()}
    values = node.target(*(constants.get(a, a) for a in node.args), **node.kwargs)  # type: ignore[operator,arg-type]
    unknown = torch.stack([constant.isnan() for constant in constants.values()]).any(0)
    if operator_of(node) == "mul":  # known as soon as one factor is 0
        zero = torch.stack([constant == 0 for constant in constants.values()]).any(0)
        values, unknown = values.where(~zero, 0), unknown & ~zero
    values = values.where(~unknown & values.isfinite(), torch.nan)
    return Channels(axis + len(shape_of(node)), main.slots, values.double())


def _aligned(flow: Flow, operand: Node, axis: int, size: int) -> Channels:
    """Return the operand's channels along an axis counted from the end, one channel if it is the same for all."""
    shape = shape_of(operand)
    if len(shape) >= -axis and shape[axis] == size:
        return flow.channels(operand, axis)
    flow.freeze(operand)
    values = flow.weights[flow.tensors[operand]].double().flatten() if operand in flow.tensors else None
    same = values is not None and bool((values == values[0]).all())
    return Channels(
        0, torch.empty(0), values[:1] if same and values is not None else torch.tensor([torch.nan]).double()
    )


def _each_map(flow: Flow, node: Node, given: dict[str, Any]) -> Found:
    """Averages and greatest values over windows of one channel: a constant one stays as it is."""
    found = flow.find(given["self"] if "self" in given else given["input"])
    if found is None or found.axis >= len(shape_of(node)) - _spatial(node):
        return None
    return found


def _average(flow: Flow, node: Node, given: dict[str, Any]) -> Found:
    """Averages over windows into which zeros may be padded."""
    found = _each_map(flow, node, given)
    padding, divisor = given["padding"], given.get("divisor_override")
    plain = divisor is None and not given["ceil_mode"] and not (any(padding) if isinstance(padding, list) else padding)
    return found if plain or not isinstance(found, Channels) else _only_zeros(found)


def _only_zeros(found: Channels) -> Channels:
    return replace(found, constant=found.constant.where(found.constant == 0, torch.nan))


def _pad(flow: Flow, node: Node, given: dict[str, Any]) -> Found:
    found, border = flow.find(given["self"]), 2 * len(shape_of(node)) - len(given["pad"])
    if found is None or 2 * found.axis >= border:
        return None
    if given["mode"] != "constant":
        return found
    value = given["value"] or 0.0
    return replace(found, constant=found.constant.where(found.constant == value, torch.nan))


def _reduce(flow: Flow, node: Node, given: dict[str, Any]) -> Found:
    """Averages, sums and greatest values over whole axes other than the channels'."""
    found, dims = flow.find(given["self"]), _dims(node, given.get("dim"))
    if found is None or not dims or found.axis in dims:
        return None
    axis = found.axis if given["keepdim"] else found.axis - sum(dim < found.axis for dim in dims)
    return replace(_only_zeros(found) if operator_of(node) == "sum" else found, axis=axis)


def _permute(flow: Flow, node: Node, given: dict[str, Any]) -> Found:
    found = flow.find(given["self"])
    return found and replace(found, axis=_dims(node, given["dims"]).index(found.axis))


def _transpose(flow: Flow, node: Node, given: dict[str, Any]) -> Found:
    found, (one, other) = flow.find(given["self"]), _dims(node, [given["dim0"], given["dim1"]])
    return found and replace(found, axis={one: other, other: one}.get(found.axis, found.axis))


def _unsqueeze(flow: Flow, node: Node, given: dict[str, Any]) -> Found:
    found, dim = flow.find(given["self"]), given["dim"] % len(shape_of(node))
    return found and replace(found, axis=found.axis + (dim <= found.axis))


def _squeeze(flow: Flow, node: Node, given: dict[str, Any]) -> Found:
    found, dims = flow.find(given["self"]), _dims(node, given.get("dim"))
    if found is None or not dims or found.axis in dims:  # without dims, a single channel left would be squeezed too
        return None
    shape = shape_of(given["self"])
    return replace(found, axis=found.axis - sum(dim < found.axis and shape[dim] == 1 for dim in dims))


def _select(flow: Flow, node: Node, given: dict[str, Any]) -> Found:
    found, (dim,) = flow.find(given["self"]), _dims(node, given["dim"])
    return None if found is None or found.axis == dim else replace(found, axis=found.axis - (dim < found.axis))


def _slice(flow: Flow, node: Node, given: dict[str, Any]) -> Found:
    found, (dim,) = flow.find(given["self"]), _dims(node, given["dim"])
    return None if found is None or found.axis == dim else found


def _expand(flow: Flow, node: Node, given: dict[str, Any]) -> Found:
    found = flow.find(given["self"])
    if found is None or not flow.trusting:
        return None
    axis = found.axis + len(shape_of(node)) - len(shape_of(given["self"]))
    return replace(found, axis=axis) if shape_of(node)[axis] == len(found.slots) else None


def _view(flow: Flow, node: Node, given: dict[str, Any]) -> Found:
    """Reshapes that leave the channel axis whole, or merge it with axes after it: index = channel * rest + others."""
    found = flow.find(given["self"])
    if found is None or not flow.trusting or len(found.slots) < 2 or "size" not in given:
        return None
    old, new = shape_of(given["self"]), shape_of(node)
    before, count = math.prod(old[: found.axis]), len(found.slots)
    axis = next((a for a, size in enumerate(new) if size > 1 and math.prod(new[:a]) == before), None)
    if axis is None or new[axis] % count:
        return None
    rest = new[axis] // count
    return Channels(axis, found.slots.repeat_interleave(rest), found.constant.repeat_interleave(rest))


def _cat(flow: Flow, node: Node, given: dict[str, Any]) -> Found:
    tensors, (dim,) = given["tensors"], _dims(node, given["dim"])
    axes = {found.axis for tensor in tensors if (found := flow.find(tensor))}
    if not axes:
        return None
    axis = dim if dim in axes else min(axes)
    parts = [flow.channels(tensor, axis) for tensor in tensors]
    if axis == dim:
        return Channels(axis, torch.cat([p.slots for p in parts]), torch.cat([p.constant for p in parts]))
    for part in parts[1:]:
        flow.couple(parts[0].slots, part.slots)
    constants = torch.stack([part.constant for part in parts])
    return replace(parts[0], constant=constants[0].where((constants == constants[0]).all(0), torch.nan))


def _split(flow: Flow, node: Node, given: dict[str, Any]) -> Found:
    """Equal parts: what goes from one goes from all, so that they stay equal."""
    found, (dim,) = flow.find(given["self"]), _dims(node, given["dim"])
    if found is None:
        return None
    sizes = [part.shape[dim] for part in node.meta["val"]]
    if found.axis != dim:
        return [found] * len(sizes)
    if not flow.trusting or len(set(sizes)) > 1:
        return None
    slots, constants = found.slots.split(sizes[0]), found.constant.split(sizes[0])
    for part in slots[1:]:
        flow.couple(slots[0], part)
    return [Channels(dim, *part) for part in zip(slots, constants, strict=True)]


def _pixel_shuffle(flow: Flow, node: Node, given: dict[str, Any]) -> Found:
    """Every block of r * r channels becomes one."""
    found = flow.find(given["self"])
    if found is None or found.axis != len(shape_of(node)) - 3:
        return None
    slots, constants = (part.view(-1, given["upscale_factor"] ** 2) for part in (found.slots, found.constant))
    for place in range(1, slots.shape[1]):
        flow.couple(slots[:, 0], slots[:, place])
    same = (constants == constants[:, :1]).all(1)
    return Channels(found.axis, slots[:, 0], constants[:, 0].where(same, torch.nan))


def _pixel_unshuffle(flow: Flow, node: Node, given: dict[str, Any]) -> Found:
    """Every channel becomes a block of r * r."""
    found = flow.find(given["self"])
    if found is None or found.axis != len(shape_of(node)) - 3:
        return None
    block = given["downscale_factor"] ** 2
    return Channels(found.axis, found.slots.repeat_interleave(block), found.constant.repeat_interleave(block))


def _dims(node: Node, dims: int | list[int] | None) -> list[int]:
    """Return axes of the first argument as numbers from 0 on."""
    listed = [] if dims is None else [dims] if isinstance(dims, int) else dims
    first = node.args[0]
    rank = len(shape_of(first if isinstance(first, Node) else first[0]))  # type: ignore[arg-type,index]
    return [dim % rank for dim in listed if rank]


def _spatial(node: Node) -> int:
    """Return how many axes at the end an operator like ``max_pool2d`` works on."""
    return int(operator_of(node)[-2])


_ELEMENTWISE = """
    abs add celu clamp clamp_max clamp_min div elu erf exp gelu hardsigmoid hardswish hardtanh leaky_relu log log1p
    maximum minimum mish mul neg pow reciprocal relu relu6 rsqrt rsub selu sigmoid silu softplus sqrt square sub tanh
"""
_MAPS = """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d max_pool1d max_pool2d max_pool3d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d
    upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d
"""
_KINDS: Mapping[Rule, str] = {
    _same: "alias clone detach _to_copy",
    _elementwise: _ELEMENTWISE,
    _each_map: _MAPS,
    _average: "avg_pool1d avg_pool2d avg_pool3d",
    _pad: "pad",
    _reduce: "mean sum amax amin",
    _permute: "permute",
    _transpose: "transpose",
    _unsqueeze: "unsqueeze",
    _squeeze: "squeeze",
    _select: "select",
    _slice: "slice",
    _expand: "expand",
    _view: "view _unsafe_view",
    _cat: "cat",
    _split: "split split_with_sizes",
    _pixel_shuffle: "pixel_shuffle",
    _pixel_unshuffle: "pixel_unshuffle",
    layers.convolution: "conv1d conv2d conv3d",
    layers.transposed_convolution: "conv_transpose1d conv_transpose2d conv_transpose3d",
    layers.linear: "linear",
    layers.batch_norm: "_native_batch_norm_legit_no_training",
    layers.prelu: "prelu",
}
RULES: Mapping[str, Rule] = MappingProxyType({name: rule for rule, names in _KINDS.items() for name in names.split()})
"""Operator -> its rule, over the operators that are left once torch has made a traced graph functional."""
