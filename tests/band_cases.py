"""Random chains of maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from bands import Case, sparse_
from hypothesis import strategies as st
from torch import Tensor
from torch.fx import Graph

from prunekit.sparse.engine.maps import SINKS, Kind, Map, Mode
from prunekit.sparse.engine.rings import LANES, Cut
from prunekit.sparse.engine.stages import Chain, reads

Draw = Callable[[st.SearchStrategy[Any]], Any]
OPERATORS = [kind for kind in Kind if kind not in {Kind.LOAD, Kind.STORE}]
CHANNELS = st.one_of(st.integers(1, 9), st.integers(1, 9), st.integers(30, 50), st.integers(90, 130))
WIDTHS = st.one_of(st.sampled_from([1, 16, 32, 48, 64, 128, 144]), st.integers(1, 40), st.integers(60, 300))


@st.composite
def cases(draw: Draw, kinds: Sequence[Kind], most: int) -> Case:
    """Chains of up to ``most`` operators of these kinds, of any shape, cut in any way that programs can be cut."""
    torch.manual_seed(draw(st.integers(0, 99)))
    n, w = draw(st.integers(1, 3)), draw(WIDTHS)
    h = draw(st.integers(1, 20 if w < 60 else 5))
    case = Case([], {}, {}, _cut(draw, h, w), threads=draw(st.integers(1, 3)))
    for _ in range(draw(st.integers(1, 2))):
        outside = Map(draw(st.sampled_from([Kind.LOAD, Kind.NORM])), (n, draw(CHANNELS), h, w))
        case.values[outside] = torch.randn(outside.shape)
    for _ in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(kinds))
        case.maps.append(_MAKERS.get(kind, _alone)(_Chooser(draw, case), kind))
    case.values = {map: case.values[map] for map in reads(Chain(case.maps))}
    _store(draw, case)
    return case


def _cut(draw: Draw, h: int, w: int) -> Cut:
    strips = draw(st.integers(LANES, w + LANES)) // LANES * LANES
    return Cut(draw(st.integers(1, h + 3)), draw(st.sampled_from([strips, w, w + 3])), draw(st.integers(1, h + 3)))


def _store(draw: Draw, case: Case) -> None:
    """Choose what is kept: what earlier chains made and is read, all that nobody reads, and some of what is between."""
    read = {operand for map in case.maps for operand, _ in map.operands}
    for map, (low, high) in reads(Chain(case.maps)).items():
        if map.kind != Kind.LOAD:
            case.stored[map] = (draw(st.integers(0, low)), draw(st.integers(high, map.channels)))
    for map in case.maps:
        if map.kind not in SINKS and (map not in read or draw(st.booleans())):
            low = draw(st.sampled_from([0, draw(st.integers(0, map.channels - 1))]))
            case.stored[map] = (low, draw(st.sampled_from([map.channels, draw(st.integers(low + 1, map.channels))])))


@final
class _Chooser:
    """Chooses what an operator is made of among the maps that are there."""

    def __init__(self, draw: Draw, case: Case) -> None:
        self.draw, self._case = draw, case
        self._there = [map for map in (*case.values, *case.maps) if map.kind not in SINKS]
        self.images, _, *self.size = self._there[0].shape
        self.most = max(map.channels for map in self._there)

    def operand(self, least: int = 1) -> tuple[tuple[Map, int], int]:
        """Return a map of that many channels, where to begin, and how many channels there are from there on."""
        map = self.draw(st.sampled_from([map for map in self._there if map.channels >= least][::-1]))
        start = self.draw(st.sampled_from([0, self.draw(st.integers(0, map.channels - least))]))
        return (map, start), map.channels - start

    def some(self, most: int) -> int:
        return self.one_of(most, self.draw(st.integers(1, most)))

    def one_of(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def maybe(self, *sizes: int) -> Tensor | None:
        return torch.randn(sizes) if self.draw(st.booleans()) else None

    def made(self, kind: Kind, c: int, *operands: tuple[Map, int], matrices: Tensor | None = None, **rest: Any) -> Map:
        source = None if matrices is None else Graph().placeholder("matrices")
        map = Map(kind, (self.images, c, *self.size), operands, epsilon=1e-2, source=source, **rest)
        if matrices is not None:
            self._case.matrices[map] = matrices
        return map


def _alone(choose: _Chooser, kind: Kind) -> Map:
    operand, left = choose.operand()
    c = choose.some(left)
    if kind == Kind.NORM:
        return choose.made(kind, c, operand, weight=choose.maybe(c), bias=choose.maybe(c))
    if kind == Kind.ACTIVATE:
        return choose.made(kind, c, operand, mode=choose.one_of(Mode.RELU, Mode.GELU))
    if kind == Kind.SUM:
        return choose.made(kind, c, operand, mode=choose.one_of(0, 1))
    scale = choose.maybe(c)
    matrices = choose.maybe(choose.images, c) if scale is None else None
    return choose.made(kind, c, operand, weight=scale, bias=choose.maybe(c), matrices=matrices)


def _sparse(choose: _Chooser, kind: Kind) -> Map:
    operand, left = choose.operand()
    inputs, c, more = choose.some(left), choose.draw(CHANNELS), []
    if choose.one_of(True, False):
        second, left = choose.operand()
        more, c = [second], choose.some(left)
    size = choose.one_of(1, 1, 3, 5)
    dense = torch.randn(c, inputs, size, size) / size / inputs**0.5
    weight = sparse_(dense, choose.one_of(0.0, 0.1, 0.5, 1.0))
    mode = choose.one_of(Mode.IDENTITY, Mode.RELU)
    return choose.made(kind, c, operand, *more, mode=mode, inputs=inputs, weight=weight, bias=choose.maybe(c))


def _dense(choose: _Chooser, kind: Kind) -> Map:
    operand, left = choose.operand()
    heads = choose.some(left) if choose.one_of(True, False) else 0  # 0: a matrix of the layer's own
    inputs, c, more = left // max(heads, 1), choose.draw(st.integers(1, 20)), []
    if choose.one_of(True, False):
        second, left = choose.operand(max(heads, 1))
        more, c = [second], choose.some(left // max(heads, 1))
    if heads:
        matrices = torch.randn(choose.images * heads, c, inputs) / inputs**0.5
        rest = {"mode": heads, "inputs": inputs, "bias": choose.maybe(c) if heads == 1 else None}
        return choose.made(kind, heads * c, operand, *more, matrices=matrices, **rest)
    weight = torch.randn(c, inputs) / inputs**0.5
    return choose.made(kind, c, operand, *more, inputs=inputs, weight=weight, bias=choose.maybe(c))


def _depthwise(choose: _Chooser, kind: Kind) -> Map:
    halves = 2 if choose.most > 1 and choose.one_of(True, False) else 1
    operand, left = choose.operand(halves)
    c, size = choose.some(left // halves), choose.one_of(1, 3, 3, 5, 7)
    mode = choose.one_of(Mode.IDENTITY, Mode.RELU, Mode.GELU) if halves == 2 else Mode.NONE
    weight = torch.randn(halves * c, 1, size, size) / size
    return choose.made(kind, c, operand, mode=mode, inputs=size, weight=weight, bias=choose.maybe(halves * c))


def _pair(choose: _Chooser, kind: Kind) -> Map:
    (first, left), (second, other) = choose.operand(), choose.operand()
    if kind == Kind.GRAM:
        heads = choose.some(min(left, other))
        return choose.made(kind, left // heads * heads, first, second, mode=heads, inputs=other // heads)
    mode = choose.one_of(Mode.IDENTITY, Mode.RELU, Mode.GELU) if kind == Kind.GATE else 0
    return choose.made(kind, choose.some(min(left, other)), first, second, mode=mode)


def _join(choose: _Chooser, kind: Kind) -> Map:
    (first, left), (second, other) = choose.operand(), choose.operand()
    inputs = choose.some(left)
    return choose.made(kind, inputs + choose.some(other), first, second, inputs=inputs)


_MAKERS: dict[Kind, Callable[[_Chooser, Kind], Map]] = {
    Kind.SPARSE: _sparse,
    Kind.DENSE: _dense,
    Kind.DEPTHWISE: _depthwise,
    Kind.JOIN: _join,
    **dict.fromkeys((Kind.GATE, Kind.ADD, Kind.GRAM), _pair),
}
