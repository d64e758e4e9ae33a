"""Join: maps that one kernel computes together, and depthwise maps taken apart where their parts go apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch

from prunekit.sparse.engine.found import Found
from prunekit.sparse.engine.maps import Kind, Map, Mode
from prunekit.sparse.engine.stages import Needs, channels_read
from prunekit.sparse.engine.views import View


def join(found: Found, needed: Needs) -> None:
    """Rewrite the maps that are needed.

    Scales and shifts of channels become part of what makes the map; a gate activates its first operand itself; a
    depthwise convolution gates its own two halves; a product adds what is added to it; a convolution rectifies; what
    attention multiplies with and the 1x1 convolution after it become one matrix; a depthwise convolution whose
    channels are read in separate parts becomes one for each part.
    """
    for map in list(needed.maps):
        while map in needed.maps and map.kind == Kind.AFFINE and _scale(map, found, needed):
            pass
    for rules in (
        {Kind.GATE: (_activate, _gate), Kind.ADD: (_add,)},
        {Kind.ACTIVATE: (_rectify,), Kind.SPARSE: (_multiply,), Kind.DENSE: (_multiply,)},
        {Kind.DEPTHWISE: (_part,)},
    ):
        for map in list(needed.maps):
            for rule in rules.get(map.kind, ()):
                rule(map, found, needed)


def _scale(map: Map, found: Found, needed: Needs) -> bool:
    """Let what makes a map scale and shift it; return whether it does."""
    first, start = map.operands[0]
    whole = start == 0 and first.channels == map.channels
    if map.source or not whole or not _scales(first) or not _only(first, map, needed):
        return False
    ones_c = torch.ones(map.channels, dtype=torch.float64)
    scale_c = ones_c if map.weight is None else map.weight.double()
    weight = ones_c if first.weight is None else first.weight.double()
    bias_c, shift_c = (0 * ones_c if part is None else part.double() for part in (first.bias, map.bias))
    _absorb(first, map, found, needed)
    map.weight = (weight * scale_c.view(-1, *[1] * (weight.dim() - 1))).float()
    map.bias = (bias_c * scale_c + shift_c).float()
    return True


def _scales(map: Map) -> bool:
    """Return whether a map's own constants can scale and shift it."""
    if map.kind == Kind.DEPTHWISE:
        return map.mode == Mode.NONE
    layer = map.kind in {Kind.NORM, Kind.AFFINE, Kind.SPARSE, Kind.DENSE}
    return layer and map.source is None and len(map.operands) == 1


def _activate(map: Map, found: Found, needed: Needs) -> None:
    """Let a gate activate what it reads first."""
    for (first, start), other in (map.operands, map.operands[::-1]):
        if map.mode == Mode.IDENTITY and first.kind == Kind.ACTIVATE and _only(first, map, needed, beside=other):
            below, offset = first.operands[0]
            map.operands, map.mode = ((below, offset + start), other), first.mode
            _forget(first, map, found, needed)
            return


def _gate(map: Map, found: Found, needed: Needs) -> None:
    """Let a depthwise convolution gate its halves."""
    (a, at), (b, half) = map.operands
    halves = a is b and (at, half, a.channels) == (0, map.channels, 2 * map.channels)
    if halves and a.kind == Kind.DEPTHWISE and a.mode == Mode.NONE and _only(a, map, needed):
        mode = map.mode
        _absorb(a, map, found, needed)
        map.mode = mode


def _add(map: Map, found: Found, needed: Needs) -> None:
    """Let a product add."""
    for (first, start), other in (map.operands, map.operands[::-1]):
        whole = start == 0 and first.channels == map.channels and len(first.operands) == 1
        if first.kind in {Kind.SPARSE, Kind.DENSE} and whole and _only(first, map, needed, beside=other):
            _absorb(first, map, found, needed)
            map.operands = (first.operands[0], other)
            return


def _rectify(map: Map, found: Found, needed: Needs) -> None:
    """Let a convolution rectify what it makes."""
    (first, start), relu = map.operands[0], map.mode == Mode.RELU
    whole = (start, first.channels) == (0, map.channels)
    if relu and first.kind == Kind.SPARSE and whole and _only(first, map, needed):
        _absorb(first, map, found, needed)
        map.mode = Mode.RELU


def _multiply(map: Map, found: Found, needed: Needs) -> None:
    """Let a matrix of torch's making that a 1x1 convolution follows be multiplied with its weights."""
    first, start = map.operands[0]
    one = first.kind == Kind.DENSE and first.source is not None and first.mode == 1 and map.mode == Mode.IDENTITY
    if not one or map.weight is None or (start, first.channels) != (0, map.inputs) or map.channels > first.channels:
        return
    added, bias = map.operands[1:], map.bias
    if map.weight.shape[2] == 1 and _only(first, map, needed, beside=added[0] if added else None):
        weight_mk, order = map.weight.flatten(1), first.order
        _absorb(first, map, found, needed)
        map.operands, map.bias = (first.operands[0], *added), bias
        map.order = lambda value: weight_mk @ (order(value) if order else value)


def _part(map: Map, found: Found, needed: Needs) -> None:
    """Make a depthwise convolution for each part that is read of one, if the parts do not overlap."""
    if map.mode != Mode.NONE:
        return
    ranges = {
        (start, channels_read(other, place))
        for other in needed.maps
        for place, (operand, start) in enumerate(other.operands)
        if operand is map
    }
    if map in needed.stored:
        low, high = needed.stored[map]
        ranges.add((low, high - low))
    parts = sorted(ranges)
    if len(parts) < 2 or any(a + size > b for (a, size), (b, _) in pairwise(parts)):
        return
    made = [(start, _cut(map, start, size)) for start, size in parts]
    for _, part in made:
        found.origin[part] = found.origin[map]
        needed.maps[part] = None
    for other in needed.maps:
        other.operands = tuple(_moved(operand, start, map, made) for operand, start in other.operands)
    for node, view in found.views.items():
        if isinstance(view, list):
            found.views[node] = [None if one is None else _seen(one, map, made) for one in view]
        else:
            found.views[node] = _seen(view, map, made)
    if map in needed.stored:
        low, high = needed.stored.pop(map)
        part, start = _moved(map, low, map, made)
        needed.stored[part] = (start, start + high - low)
    del needed.maps[map]


def _cut(map: Map, start: int, size: int) -> Map:
    """Return some channels of a depthwise convolution."""
    (source, first), (n, _, h, w) = map.operands[0], map.shape
    weight, bias = (None if part is None else part[start : start + size] for part in (map.weight, map.bias))
    shape, operands = (n, size, h, w), ((source, first + start),)
    return Map(map.kind, shape, operands, mode=map.mode, inputs=map.inputs, weight=weight, bias=bias)


def _moved(operand: Map, start: int, old: Map, made: Sequence[tuple[int, Map]]) -> tuple[Map, int]:
    """Return the part that has a channel of what was one map."""
    for first, part in made:
        if operand is old and first <= start < first + part.channels:
            return part, start - first
    return operand, start


def _seen(view: View, old: Map, made: Sequence[tuple[int, Map]]) -> View:
    """Return a view of the part that has all of its channels."""
    if view.map is not old:
        return view
    for first, part in made:
        if first <= view.start and view.start + view.channels <= first + part.channels:
            return replace(view, map=part, start=view.start - first)
    return view


def _only(map: Map, reader: Map, needed: Needs, beside: tuple[Map, int] | None = None) -> bool:
    """Return whether nobody else reads a map, nor its reader once more ``beside`` it."""
    others = [other for other in needed.maps if any(operand is map for operand, _ in other.operands)]
    return others == [reader] and map not in needed.stored and (beside is None or beside[0] is not map)


def _absorb(map: Map, into: Map, found: Found, needed: Needs) -> None:
    """Let a map do what made the one that it reads, and forget that one."""
    for part in ("kind", "operands", "mode", "inputs", "weight", "bias", "epsilon", "source", "order"):
        setattr(into, part, getattr(map, part))
    _forget(map, into, found, needed)


def _forget(map: Map, into: Map, found: Found, needed: Needs) -> None:
    """Forget a map that has become part of another one."""
    found.origin[into] = found.origin[into] | found.origin[map]
    del needed.maps[map]
