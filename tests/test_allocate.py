"""Allocations: exact counts against a full sort, ties, floors, factors, and errors."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prunekit.allocate import Allocation, erk, everywhere, per_layer, shares
from prunekit.amount import Amount, Density, Rate
from prunekit.errors import MaskError, SelectionError
from prunekit.masks import Masks

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def dense(scores: dict[str, Tensor]) -> Masks:
    return Masks({name: torch.ones(score.shape, dtype=torch.bool) for name, score in scores.items()})


def sorted_best(scores: dict[str, Tensor], now: Masks, keep: int) -> Masks:
    """The definition, by a full stable sort in float64: highest first, of equals the first in order."""
    flat = torch.cat([scores[name].double().flatten() for name in now])
    alive = torch.cat([mask.flatten() for mask in now.values()])
    order = flat[alive].sort(descending=True, stable=True).indices[:keep]
    best = torch.zeros_like(alive)
    best[alive.nonzero()[:, 0][order]] = True
    parts = best.split([mask.numel() for mask in now.values()])
    return Masks({name: part.reshape(now[name].shape) for name, part in zip(now, parts, strict=True)})


@pytest.mark.parametrize("allocation", [everywhere, per_layer, erk])
@pytest.mark.parametrize("min_keep", [0, 1])
def test_floors(allocation: Callable[..., Allocation], min_keep: int) -> None:
    scores = {"a": torch.arange(9.0), "b": torch.arange(5.0)}
    after = allocation(min_keep=min_keep)(scores, dense(scores), Density(0.01))
    assert after.kept == {0: 0, 1: 2}[min_keep]


VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, 2**-149, -(2**-149), 1 + 2**-23, -1 - 2**-23]),
    st.floats(width=32, allow_nan=False),
)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_global_choice_equals_a_full_stable_sort(data: st.DataObject) -> None:
    scores, now = {}, {}
    for index in range(data.draw(st.integers(1, 4))):
        values = data.draw(st.lists(VALUES, max_size=12))
        dtype = data.draw(st.sampled_from(DTYPES))
        alive = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
        scores[f"t{index}"] = torch.tensor(values, dtype=torch.float64).to(dtype)
        now[f"t{index}"] = torch.tensor(alive, dtype=torch.bool)
    masks = Masks(now)
    amount = data.draw(st.one_of(st.floats(0.01, 1).map(Density), st.floats(0, 0.99).map(Rate)))
    expected = sorted_best(scores, masks, amount.keep(masks.kept, masks.prunable))
    assert everywhere()(scores, masks, amount) == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_longer_than_a_chunk(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    scores = {
        "a": torch.randn(300_001).to(dtype),
        "b": torch.randn(7, 5).to(dtype),
        "c": torch.randn(262_144).to(dtype),
    }
    now = dense(scores)
    for amount in (Rate(0.2), Rate(0.5), Density(0.1)):
        expected = sorted_best(scores, now, amount.keep(now.kept, now.prunable))
        now = everywhere()(scores, now, amount)
        assert now == expected


def test_float64_scores_are_told_apart_beyond_float32() -> None:
    scores = {"a": torch.tensor([1.0, 1 + 1e-15, 1 - 1e-15], dtype=torch.float64), "b": torch.tensor([1.0])}
    after = everywhere()(scores, dense(scores), Density(0.5))
    assert after["a"].tolist() == [True, True, False] and after["b"].tolist() == [False]


def test_of_equal_scores_the_first_in_model_order_are_kept() -> None:
    scores = {"z": torch.zeros(2, 2), "a": torch.tensor([-0.0, 0.0, 0.0])}
    after = everywhere()(scores, dense(scores), Density(5 / 7))
    assert after["z"].tolist() == [[True, True], [True, True]] and after["a"].tolist() == [True, False, False]
    after = per_layer()(scores, dense(scores), Density(0.5))
    assert after["z"].tolist() == [[True, True], [False, False]] and after["a"].tolist() == [True, True, False]


def test_what_is_cut_stays_cut_whatever_its_score() -> None:
    now = Masks({"a": torch.tensor([True, False, True, False, True])})
    scores = {"a": torch.tensor([1.0, math.inf, 2.0, math.nan, -math.inf])}
    for keep, expected in ((3, [0, 2, 4]), (2, [0, 2]), (1, [2])):
        for allocation in (everywhere(), per_layer()):
            assert allocation(scores, now, Density(keep / 5))["a"].nonzero().flatten().tolist() == expected


@pytest.mark.parametrize(
    ("amount", "kept"),
    [(Density(0.5), [1, 1, 3]), (Density(0.1), [1, 1, 2]), (Density(0.8), [1, 1, 6]), (Rate(0.5), [1, 1, 2])],
)
def test_global_floor_makes_other_tensors_give_more(amount: Amount, kept: list[int]) -> None:
    scores = {"dim": torch.tensor([0.1]), "dead": torch.tensor([9.0, 0.2, 9.0]), "rich": torch.arange(1.0, 7.0)}
    now = Masks({**dense(scores), "dead": torch.tensor([False, True, False])})
    after = everywhere(min_keep=2)(scores, now, amount)
    assert [count for count, _ in after.per_tensor().values()] == kept
    asked = amount.keep(now.kept, now.prunable)
    assert after.kept == max(asked, 1 + 1 + 2)
    assert after["rich"].nonzero().flatten().tolist() == list(range(6 - kept[2], 6))


def test_global_floor_changes_nothing_where_it_does_not_bind() -> None:
    torch.manual_seed(0)
    scores = {name: torch.randn(50) for name in "abc"}
    plain = everywhere()(scores, dense(scores), Density(0.4))
    assert min(kept for kept, _ in plain.per_tensor().values()) >= 5
    assert everywhere(min_keep=5)(scores, dense(scores), Density(0.4)) == plain


@pytest.mark.parametrize(
    ("amount", "kept"),
    [
        (Rate(0.2), {"body": 20 - 4, "output.weight": 20 - 2, "norm": 20}),  # ceil(0.2 * 19), ceil(0.1 * 19), 0
        (Density(0.2), {"body": 4, "output.weight": 12, "norm": 20}),  # densities 0.2, 1 - 0.5 * 0.8, 1
    ],
)
def test_rates_are_factors_on_what_is_cut(amount: Amount, kept: dict[str, int]) -> None:
    scores = {name: torch.arange(20.0) for name in kept}
    rates = {"output.*": 0.5, "norm": 0.0, "*.weight": 0.9}  # the first that matches counts
    after = per_layer(rates=rates)(scores, dense(scores), amount)
    assert {name: count for name, (count, _) in after.per_tensor().items()} == kept


def test_mistakes_are_named() -> None:
    scores = {"a": torch.arange(4.0), "b": torch.tensor([1.0, math.nan])}
    now = dense(scores)
    for allocation in (everywhere(), per_layer(), everywhere(min_keep=1)):
        with pytest.raises(SelectionError, match="'b' holds NaN"):
            allocation(scores, now, Density(0.5))
        with pytest.raises(SelectionError, match="no score for 'b'"):
            allocation({"a": scores["a"]}, now, Density(0.5))
        with pytest.raises(MaskError, match=r"'b' is torch.float32 of shape \(3,\)"):
            allocation({**scores, "b": torch.ones(3)}, now, Density(0.5))
        with pytest.raises(MaskError, match=r"'b' is torch\.int64"):
            allocation({**scores, "b": torch.ones(2).long()}, now, Density(0.5))
    with pytest.raises(SelectionError, match="rates: 'c' matches no name"):
        per_layer(rates={"c": 0.5})(scores, now, Density(0.5))
    with pytest.raises(SelectionError, match=r"factor of 'a' must be between 0 and 1, not 1.5"):
        per_layer(rates={"a": 1.5})
    with pytest.raises(SelectionError, match="min_keep must be 0 or more"):
        everywhere(min_keep=-1)


def test_erk_by_hand() -> None:
    # Entries on the axes 10 + 10, 30 + 10 + 3 + 3, 5: at 100 kept of 1,105 the vector's share would be
    # 100 * 5 / 71 = 7.04 of 5, so it stays whole and the others share 95 as 20 : 46.
    shapes = {"linear": (10, 10), "conv": (30, 10, 3, 3), "norm": (5,)}
    scores = {name: torch.rand(shape) for name, shape in shapes.items()}
    after = erk()(scores, dense(scores), Density(100 / 2805))
    assert {name: kept for name, (kept, _) in after.per_tensor().items()} == {"linear": 29, "conv": 66, "norm": 5}


def test_erk_meets_the_count_beside_scalars_and_empty_tensors() -> None:
    scores = {"scale": torch.ones(()), "none": torch.ones(0, 3), "matrix": torch.arange(100.0).reshape(10, 10)}
    after = erk()(scores, dense(scores), Density(11 / 101))
    assert after.per_tensor() == {"scale": (1, 1), "none": (0, 0), "matrix": (10, 100)}


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(0, 30), st.integers(0, 5)), min_size=1, max_size=6), st.data()
)
def test_shares_add_up_within_their_bounds(parts: list[tuple[int, int, int]], data: st.DataObject) -> None:
    names = [f"t{k}" for k in range(len(parts))]
    weights = {name: float(weight) for name, (weight, _, _) in zip(names, parts, strict=True)}
    most = {name: size for name, (_, size, _) in zip(names, parts, strict=True)}
    least = {name: min(floor, most[name]) for name, (_, _, floor) in zip(names, parts, strict=True)}
    total = data.draw(st.integers(0, sum(most.values())))
    found = shares(weights, least, most, total)
    assert all(least[name] <= found[name] <= most[name] for name in names)
    assert sum(found.values()) == max(total, sum(least.values()))
    free = [found[name] / weights[name] for name in names if least[name] < found[name] < most[name]]
    slack = max((1 / weights[name] for name in names), default=0)
    assert not free or max(free) - min(free) <= 2 * slack  # in proportion, to the nearest whole numbers
