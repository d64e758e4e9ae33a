"""Chains in bands of rows against float64: each operator alone and many at once, whatever the shape and the cut."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from band_cases import OPERATORS, cases
from bands import Case, expected, run, sparse_
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.fx import Graph

from prunekit.native import kernels
from prunekit.sparse.engine.maps import Kind, Map, Mode
from prunekit.sparse.engine.rings import Cut

pytestmark = [
    pytest.mark.skipif(kernels() is None, reason="the kernels were not built: no C compiler at install"),
    pytest.mark.usefixtures("every_copy"),
]
every_operator = pytest.mark.parametrize("kind", OPERATORS, ids=lambda kind: kind.name)
every_cut = pytest.mark.parametrize(
    "cut",
    [Cut(50, 96, 50), Cut(50, 96, 1), Cut(7, 96, 3), Cut(5, 32, 2), Cut(1, 16, 1), Cut(40, 64, 7)],
    ids=lambda cut: f"{cut.tall}x{cut.wide} by {cut.band}",
)


def agree(found: Tensor, exact: Tensor, tolerance: float) -> None:
    """Fail where numbers differ by more than that share of the largest, or infinities and NaN at all."""
    assert found.shape == exact.shape
    finite = exact.isfinite()
    torch.testing.assert_close(found[~finite].double(), exact[~finite], equal_nan=True)
    scale = float(exact[finite].abs().max().clamp_min(1)) if finite.any() else 1.0
    torch.testing.assert_close(found[finite].double(), exact[finite], atol=tolerance * scale, rtol=0)


def check(case: Case, tolerance: float = 1e-5) -> None:
    found, exact = run(case), expected(case)
    assert found.keys() == exact.keys()
    for map in found:
        agree(found[map], exact[map], tolerance)


@every_operator
@given(data=st.data())
@settings(max_examples=3, deadline=None)
def test_any_operator(kind: Kind, data: st.DataObject) -> None:
    check(data.draw(cases([kind], 1)))


@given(case=cases(OPERATORS, 6))
@settings(max_examples=20, deadline=None)
def test_any_chain(case: Case) -> None:
    check(case, 1e-4)


@pytest.mark.slow
@every_operator
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_many_of_any_operator(kind: Kind, data: st.DataObject) -> None:
    check(data.draw(cases([kind], 1)))


@pytest.mark.slow
@given(case=cases(OPERATORS, 6))
@settings(max_examples=100, deadline=None)
def test_many_chains(case: Case) -> None:
    check(case, 1e-4)


@every_operator
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_infinity_and_nan_go_where_they_go_in_torch(kind: Kind, data: st.DataObject) -> None:
    """Where weights are zero, SPARSE differs from torch: there is nothing that could be multiplied."""
    case = data.draw(cases([kind], 1))
    for value in case.values.values():
        for bad in (math.nan, math.inf, -math.inf):
            value.view(-1)[data.draw(st.integers(0, value.numel() - 1))] = bad
    check(case)


@given(case=cases(OPERATORS, 4))
@settings(max_examples=12, deadline=None)
def test_bits_do_not_depend_on_the_threads(case: Case) -> None:
    results = [run(replace(case, threads=threads)) for threads in (1, 2, 3)]
    for map, one in results[0].items():
        for others in results[1:]:
            assert torch.equal(one.contiguous().view(torch.int32), others[map].contiguous().view(torch.int32))


def load(c: int, h: int = 23, w: int = 83, n: int = 2) -> tuple[Map, Tensor]:
    x = Map(Kind.LOAD, (n, c, h, w))
    return x, torch.randn(x.shape)


def on(kind: Kind, x: Map, c: int | None = None, at: int = 0, *more: Map, **rest: object) -> Map:
    n, _, h, w = x.shape
    return Map(kind, (n, c or x.channels, h, w), ((x, at), *((other, 0) for other in more)), **rest)  # type: ignore[arg-type]


def depthwise(x: Map, size: int) -> Map:
    return on(Kind.DEPTHWISE, x, mode=Mode.NONE, inputs=size, weight=torch.randn(x.channels, 1, size, size) / size)


@every_cut
@pytest.mark.parametrize("width", [83, 96])
def test_the_block_of_a_restoration_network(cut: Cut, width: int) -> None:
    torch.manual_seed(0)
    x, value = load(10, w=width)
    norm = on(Kind.NORM, x, weight=torch.randn(10), bias=torch.randn(10), epsilon=1e-5)
    wide = on(Kind.SPARSE, norm, 36, inputs=10, weight=sparse_(torch.randn(36, 10, 1, 1), 0.3), bias=torch.randn(36))
    kernel = torch.randn(36, 1, 3, 3)
    gate = on(Kind.DEPTHWISE, wide, 18, mode=Mode.GELU, inputs=3, weight=kernel)
    out = on(Kind.SPARSE, gate, 10, 0, x, inputs=18, weight=sparse_(torch.randn(10, 18, 1, 1), 0.3))
    found = run(Case([norm, wide, gate, out], {out: (0, 10)}, {x: value}, cut, threads=2))[out]
    assert norm.weight is not None and wide.weight is not None and out.weight is not None
    y = F.layer_norm(value.movedim(1, -1).double(), (10,), norm.weight.double(), norm.bias.double()).movedim(-1, 1)
    y = F.conv2d(y, wide.weight.double(), wide.bias.double())
    a, b = F.conv2d(y, kernel.double(), padding=1, groups=36).chunk(2, 1)
    agree(found, F.conv2d(F.gelu(a) * b, out.weight.double()) + value, 1e-5)


@every_cut
@pytest.mark.parametrize("width", [83, 96])
def test_the_attention_of_a_restoration_network(cut: Cut, width: int) -> None:
    torch.manual_seed(0)
    x, value = load(12, w=width)
    wide = on(Kind.SPARSE, x, 36, inputs=12, weight=sparse_(torch.randn(36, 12, 1, 1), 0.3))
    around = depthwise(wide, 3)
    gram = Map(Kind.GRAM, (2, 12, *x.shape[2:]), ((around, 0), (around, 12)), mode=3, inputs=4)
    sums = on(Kind.SUM, around, 24, mode=1)
    first = Case([wide, around, gram, sums], {around: (24, 36)}, {x: value}, cut, threads=2)
    check(first)
    applied = on(Kind.DENSE, around, 12, 24, mode=3, inputs=4, source=Graph().placeholder("attention"))
    out = on(Kind.SPARSE, applied, 12, 0, x, inputs=12, weight=sparse_(torch.randn(12, 12, 1, 1), 0.3))
    v = torch.zeros(2, 36, *x.shape[2:])
    v[:, 24:] = run(first)[around]  # as it lies in memory between the two
    check(
        Case(
            [applied, out],
            {around: (24, 36), out: (0, 12)},
            {x: value, around: v},
            cut,
            {applied: torch.randn(6, 4, 4)},
        )
    )


@every_cut
def test_depthwise_convolutions_in_a_row_look_at_what_lies_in_between(cut: Cut) -> None:
    torch.manual_seed(0)
    x, value = load(3)
    maps = [x]
    for size in (5, 3, 3, 7):
        maps.append(depthwise(maps[-1], size))
    _, first, second, _, last = maps
    stored = {first: (1, 2), second: (0, 3), last: (0, 3)}  # far ahead of the band that is written
    check(Case(maps[1:], stored, {x: value}, cut))


@pytest.mark.parametrize("sizes", [[15, 15, 15], [3] * 24], ids=["large", "many"])
def test_halos_wider_than_a_vector(sizes: list[int]) -> None:
    torch.manual_seed(0)
    x, value = load(2)
    maps = [x]
    for size in sizes:
        maps.append(depthwise(maps[-1], size))
    check(Case(maps[1:], {maps[-1]: (0, 2)}, {x: value}, Cut(23, 32, 4)))


@pytest.mark.parametrize("kind", [Kind.AFFINE, Kind.DENSE], ids=["AFFINE", "DENSE"])
def test_what_has_matrices_may_be_kept(kind: Kind) -> None:
    x, value = load(4)
    made = on(kind, x, mode=2 if kind == Kind.DENSE else 0, inputs=2, source=Graph().placeholder("matrices"))
    matrices = torch.randn(4, 2, 2) if kind == Kind.DENSE else torch.randn(2, 4)
    check(Case([made], {made: (0, 4)}, {x: value}, Cut(23, 83, 4), {made: matrices}))


def test_constant_scales_may_be_kept() -> None:
    x, value = load(4)
    made = on(Kind.AFFINE, x, weight=torch.randn(4), bias=torch.randn(4))
    check(Case([made], {made: (0, 4)}, {x: value}, Cut(23, 83, 4)))


def test_denormals_are_numbers_here_and_everywhere_after() -> None:
    x = Map(Kind.LOAD, (4, 1, 30, 16))
    half = on(Kind.AFFINE, x, source=Graph().placeholder("scales"))
    case = Case(
        [half], {half: (0, 1)}, {x: torch.full(x.shape, 1e-40)}, Cut(1, 16, 1), {half: torch.full((4, 1), 0.5)}, 3
    )
    assert torch.equal(run(case)[half], torch.full(x.shape, 5e-41))
    assert float(torch.tensor(1e-40) * 0.5) > 0


def test_strips_at_a_border_are_narrower_than_those_inside() -> None:
    x, value = load(1, h=2, w=60)
    made = on(Kind.SPARSE, x, 2, inputs=1, weight=torch.randn(2, 1, 3, 3))
    check(Case([made], {made: (0, 2)}, {x: value}, Cut(2, 32, 2)))
