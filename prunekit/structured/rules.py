"""What operators without weights do to channels, and the table of all rules.

A rule returns the tracks of the operator's result. What no rule knows lets all its inputs' channels stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from prunekit.structured import layers
from prunekit.structured.slots import Track, Tracks
from prunekit.structured.views import viewed
from prunekit.structured.walk import Value, Walk
from prunekit.trace import operator_of, shape_of

Rule = Callable[[Walk, Node, dict[str, Any]], Value]


def rule_of(node: Node) -> Rule | None:
    """Return the rule of an operator, by its name or because torch says that it works entry by entry."""
    name = operator_of(node)
    if name in RULES:
        return RULES[name]
    return layers.elementwise if torch.Tag.pointwise in getattr(node.target, "tags", ()) else None


def _permute(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    places = {old: new for new, old in enumerate(_dims(node, given["dims"]))}
    return _moved(walk, node, places)


def _transpose(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    places = dict(enumerate(range(len(shape_of(node)))))
    one, other = _dims(node, [given["dim0"], given["dim1"]]) if "dim0" in given else (0, 1)
    return _moved(walk, node, places | {one: other, other: one})


def _unsqueeze(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    dim = given["dim"] % len(shape_of(node))
    return _moved(walk, node, {axis: axis + (dim <= axis) for axis in range(len(shape_of(node)))})


def _expand(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """Also ``repeat``; what is repeated along its own axis stays."""
    source: Node = node.args[0]  # type: ignore[assignment]
    old, new = shape_of(source), shape_of(node)
    more = len(new) - len(old)
    for track in walk.tracks(source):
        if any(old[axis] != new[axis + more] for axis in track.axes):
            walk.slots.keep(track.slots)
            return ()
    return _moved(walk, node, {axis: axis + more for axis in range(len(old))})


def _view(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    source: Node = node.args[0]  # type: ignore[assignment]
    return viewed(walk, source, shape_of(source), shape_of(node))


def _select(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """One index of an axis: of a head, say, but not of what shrinks."""
    (dim,) = _dims(node, given["dim"])
    return _picked(walk, node, dim, given["index"])


def _picked(walk: Walk, node: Node, dim: int, index: int) -> Tracks:
    found = []
    for track in walk.tracks(node.args[0]):  # type: ignore[arg-type]
        if track.axes[-1] == dim:
            walk.slots.keep(track.slots)
            continue
        if dim in track.axes:
            place = track.axes.index(dim)
            axes = tuple(axis for axis in track.axes if axis != dim)
            track = Track(axes, np.take(track.slots, index, place))
        found.append(Track(tuple(axis - (dim < axis) for axis in track.axes), track.slots))
    return tuple(found)


def _unbind(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    (dim,) = _dims(node, given["dim"])
    return [_picked(walk, node, dim, index) for index in range(len(node.meta["val"]))]


def _slice(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """A range of places; a range of what shrinks is written in numbers that would no longer be right."""
    source: Node = node.args[0]  # type: ignore[assignment]
    (dim,) = _dims(node, given["dim"])
    size = shape_of(source)[dim]
    part = slice(*slice(given["start"], given["end"], given["step"]).indices(size))
    if len(range(size)[part]) == size:
        return walk.tracks(source)
    return tuple(_sliced(walk, walk.tracks(source), dim, part))


def _sliced(walk: Walk, tracks: Tracks, dim: int, part: slice) -> list[Track]:
    found = []
    for track in tracks:
        if track.axes[-1] == dim:
            walk.slots.keep(track.slots)
        elif dim in track.axes:
            whole = [part if axis == dim else slice(None) for axis in track.axes]
            found.append(Track(track.axes, track.slots[tuple(whole)]))
        else:
            found.append(track)
    return found


def _split(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """Equal parts must stay equal; other parts have their sizes written into the code."""
    tracks, (dim,) = walk.tracks(node.args[0]), _dims(node, given["dim"])  # type: ignore[arg-type]
    sizes = [part.shape[dim] for part in node.meta["val"]]
    starts = np.cumsum([0, *sizes])
    parts: list[list[Track]] = [[] for _ in sizes]
    for track in tracks:
        if track.axes[-1] == dim and len(set(sizes)) == 1:
            grid = track.slots.reshape(*track.slots.shape[:-1], len(sizes), -1)
            walk.slots.rectangle(grid)
            for place, part in enumerate(parts):
                part.append(Track(track.axes, grid[..., place, :]))
        else:
            for place, part in enumerate(parts):
                part += _sliced(walk, (track,), dim, slice(int(starts[place]), int(starts[place + 1])))
    return [tuple(part) for part in parts]


def _cat(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    tensors, (dim,) = given["tensors"], _dims(node, given["dim"])
    rank = len(shape_of(node))
    labels = [[axis if axis != dim else ("own", place) for axis in range(rank)] for place in range(len(tensors))]
    out = [axis if axis != dim else "joined" for axis in range(rank)]
    found = walk.combine(list(zip(tensors, labels, strict=True)), out)
    parts = []
    for tensor in tensors:
        along = [track for track in walk.tracks(tensor) if track.axes == (dim,)]
        for track in walk.tracks(tensor):
            if dim in track.axes and track.axes != (dim,):
                walk.slots.keep(track.slots)
        parts.append(along[0].slots if along else np.zeros(shape_of(tensor)[dim], dtype=np.int64))
    joined = np.concatenate(parts)
    return (*found, Track((dim,), joined)) if joined.any() else found


def _pixel_shuffle(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """Every block of r * r channels becomes one, so it goes together."""
    return _shuffled(walk, node, given["upscale_factor"] ** 2, into_one=True)


def _pixel_unshuffle(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """Every channel becomes a block of r * r."""
    return _shuffled(walk, node, given["downscale_factor"] ** 2, into_one=False)


def _shuffled(walk: Walk, node: Node, block: int, *, into_one: bool) -> Tracks:
    source: Node = node.args[0]  # type: ignore[assignment]
    rank = len(shape_of(node))
    layers.collapse(walk, source, range(rank - 2, rank))
    found = []
    for track in walk.tracks(source):
        if track.axes == (rank - 3,) and into_one:
            grid = track.slots.reshape(-1, block)
            walk.slots.couple(grid, grid[:, :1])
            found.append(Track(track.axes, grid[:, 0]))
        elif track.axes == (rank - 3,):
            found.append(Track(track.axes, track.slots.repeat(block)))
        else:
            walk.slots.keep(track.slots)
    return tuple(found)


def _spatial(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """Pooling, resizing and padding of pixels: every channel by itself."""
    source: Node = node.args[0]  # type: ignore[assignment]
    name, rank = operator_of(node), len(shape_of(source))
    count = len(given["pad"]) // 2 if "pad" in given else int(next(c for c in name[::-1] if c.isdigit()))
    layers.collapse(walk, source, range(rank - count, rank))
    found = tuple(track for track in walk.tracks(source) if max(track.axes) < rank - count)
    return [found, found] if isinstance(node.meta["val"], (tuple, list)) else found  # the largest ones and their places


def _reduce(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """Sums, averages and norms over whole axes; an average over channels mixes them."""
    source: Node = node.args[0]  # type: ignore[assignment]
    rank = len(shape_of(source))
    dims = _dims(node, given.get("dim")) or list(range(rank))
    for track in walk.tracks(source):
        if track.axes[-1] in dims and operator_of(node) not in {"sum", "linalg_vector_norm"}:
            walk.slots.mix(track.slots)
    keep = given.get("keepdim", False)
    out = [axis for axis in range(rank) if axis not in dims]
    found = walk.combine([(source, list(range(rank)))], out)
    return tuple(Track(tuple(out[axis] if keep else axis for axis in track.axes), track.slots) for track in found)


def _softmax(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    (dim,) = _dims(node, given["dim"])
    tracks = walk.tracks(node.args[0])  # type: ignore[arg-type]
    for track in tracks:
        if dim in track.axes:
            walk.slots.mix(track.slots)
    return tracks


def _shift(walk: Walk, node: Node, given: dict[str, Any]) -> Value:
    """``roll`` and ``flip`` along pixels or tokens."""
    dims = _dims(node, given["dims"]) or list(range(len(shape_of(node))))
    if any(set(track.axes) & set(dims) for track in walk.tracks(node.args[0])):  # type: ignore[arg-type]
        walk.keep_inputs(node)
        return ()
    return walk.tracks(node.args[0])  # type: ignore[arg-type]


def _moved(walk: Walk, node: Node, places: Mapping[int, int]) -> Tracks:
    tracks = walk.tracks(node.args[0])  # type: ignore[arg-type]
    return tuple(Track(tuple(places[axis] for axis in track.axes), track.slots) for track in tracks)


def _dims(node: Node, dims: int | list[int] | None) -> list[int]:
    """Return axes of the first argument as numbers from 0 on."""
    listed = [] if dims is None else [dims] if isinstance(dims, int) else dims
    first = node.args[0]
    rank = len(shape_of(first if isinstance(first, Node) else first[0]))  # type: ignore[arg-type,index]
    return [dim % rank for dim in listed if rank]


_POOLS = ["avg_pool", "max_pool", "adaptive_avg_pool", "adaptive_max_pool"]
_RESIZED = ["nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "bicubic2d", "trilinear3d"]
_KINDS: Mapping[Rule, str] = {
    layers.elementwise: "clone alias detach _to_copy to contiguous dropout lift_fresh_copy",
    _permute: "permute",
    _transpose: "transpose t",
    _unsqueeze: "unsqueeze",
    _expand: "expand repeat",
    _view: "view _unsafe_view reshape flatten squeeze",
    _select: "select",
    _unbind: "unbind",
    _slice: "slice",
    _split: "split split_with_sizes chunk",
    _cat: "cat",
    _pixel_shuffle: "pixel_shuffle",
    _pixel_unshuffle: "pixel_unshuffle",
    _spatial: " ".join(
        ["pad", *(f"{pool}{n}d" for pool in _POOLS for n in (1, 2, 3)), *(f"upsample_{how}" for how in _RESIZED)]
    ),
    _reduce: "sum mean var std amax amin linalg_vector_norm norm",
    _softmax: "softmax log_softmax _softmax",
    _shift: "roll flip",
    layers.convolution: "conv1d conv2d conv3d",
    layers.transposed_convolution: "conv_transpose1d conv_transpose2d conv_transpose3d",
    layers.linear: "linear",
    layers.embedding: "embedding",
    layers.product: "matmul mm bmm addmm baddbmm",
    layers.einsum: "einsum",
    layers.attention: "scaled_dot_product_attention",
    layers.batch_norm: "_native_batch_norm_legit_no_training instance_norm",
    layers.layer_norm: "layer_norm",
    layers.group_norm: "group_norm",
    layers.prelu: "prelu",
}
RULES: Mapping[str, Rule] = MappingProxyType({name: rule for rule, names in _KINDS.items() for name in names.split()})
"""Operator -> its rule, over the operators that are left once torch has made a traced graph functional."""
