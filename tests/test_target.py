"""Targets: multiply-adds met from below, steps on the way, and allocations that misbehave."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunekit.allocate import Allocation, erk, everywhere, per_layer
from prunekit.amount import Amount, Density, MacDensity, Rate
from prunekit.calibration import Calibration
from prunekit.errors import MaskError, SelectionError
from prunekit.gradients import snip
from prunekit.groups import per_output
from prunekit.masks import Masks
from prunekit.measure import count_macs, macs_per_tensor
from prunekit.pruner import prune
from prunekit.score import Scores, magnitude, repeated
from prunekit.target import meet, on_the_way


def dense(**sizes: int) -> Masks:
    return Masks({name: torch.ones(size, dtype=torch.bool) for name, size in sizes.items()})


def test_multiply_adds_are_met_from_below_with_the_most_weights() -> None:
    scores = {"cheap": torch.arange(1.0, 11.0), "dear": torch.arange(1.0, 11.0) + 0.5}
    now = dense(cheap=10, dear=10)
    cost = {"cheap": 10, "dear": 90}  # 1 and 9 a weight, best first: dear 9, cheap 1, ...
    target = MacDensity(0.5, cost, other=20)  # of 120 in all, so 40 for weights: four of each
    after = meet(scores, now, target, everywhere())
    assert after.per_tensor() == {"cheap": (4, 10), "dear": (4, 10)}
    assert target.macs(after.per_tensor()) == 60.0
    below = meet(scores, now, MacDensity(0.49, cost, other=20), everywhere())
    assert below.per_tensor() == {"cheap": (3, 10), "dear": (3, 10)}  # a fourth pair would be 60 > 58.8
    assert meet(scores, now, MacDensity(1.0, cost), everywhere()) == now


def test_multiply_adds_are_met_with_the_most_weights_of_all_counts_that_there_are() -> None:
    scores = {"a": torch.rand(7, generator=torch.Generator().manual_seed(0)), "b": torch.linspace(0, 1, 6)}
    now, cost = dense(a=7, b=6), {"a": 7, "b": 30}
    for value in (0.99, 0.8, 0.61, 0.45, 0.3, 0.17):
        target = MacDensity(value, cost)
        every = [everywhere()(scores, now, Density(count / 13)) for count in range(1, 14)]
        most = max(each.kept for each in every if target.macs(each.per_tensor()) <= target.limit)
        assert meet(scores, now, target, everywhere()).kept == most


@pytest.mark.parametrize("allocation", [everywhere(), per_layer(), erk()])
def test_multiply_adds_of_a_network_as_they_are_counted(allocation: object) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.Flatten(), nn.Linear(72, 4))
    x = torch.zeros(1, 3, 9, 9)
    cost = {name: each.dense for name, each in macs_per_tensor(model, x).items() if name.endswith("weight")}
    masks = prune(model, Masks.dense(model), MacDensity(0.3, cost), allocation=allocation)  # type: ignore[arg-type]
    macs = count_macs(model, x, masks)
    assert 0.29 * macs.dense < macs.kept <= 0.3 * macs.dense


def test_what_multiply_adds_cannot_be_cut_is_said() -> None:
    with pytest.raises(SelectionError, match=r"cannot keep 10.00% of 100 multiply-adds: those by no .* 20.00% \(20\)"):
        MacDensity(0.1, {"a": 80}, other=20)
    with pytest.raises(SelectionError, match="above 0 and at most 1, not 0"):
        MacDensity(0, {"a": 80})
    with pytest.raises(SelectionError, match="no cut of this allocation leaves 1.00% of the multiply-adds"):
        meet({"a": torch.ones(2)}, dense(a=2), MacDensity(0.01, {"a": 80}), everywhere())


def test_steps_fall_by_equal_factors_and_end_exactly() -> None:
    now = dense(a=1000)
    counts = [step.keep(1000, 1000) for step in on_the_way(now, Density(0.001), 3)]  # type: ignore[union-attr]
    assert counts == [100, 10, 1]
    assert on_the_way(now, Rate(0.5), 1) == [Rate(0.5)]
    assert on_the_way(now, Rate(0.75), 2) == [Rate(0.5), Rate(0.75)]
    assert [round(step.value, 3) for step in on_the_way(now, MacDensity(0.25, {"a": 10}), 2)] == [0.5, 0.25]
    assert on_the_way(now, Density(1e-9), 4) == [Density(1e-9)]


@pytest.mark.parametrize("allocation", [per_layer(rates={"2.*": 0.5}), per_layer(), per_output()])
@pytest.mark.parametrize("amount", [Density(0.37), Rate(0.2)])
def test_many_small_cuts_leave_what_one_cut_leaves_of_every_tensor(allocation: Allocation, amount: Amount) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(33, 17, bias=False), nn.ReLU(), nn.Linear(17, 29, bias=False))
    data = Calibration([torch.randn(8, 33)], lambda net, x: net(x).square().mean())
    now = Masks.dense(model)
    for _ in range(2):
        once, often = (
            prune(model, now, amount, scorer=each, allocation=allocation, data=data)
            for each in (snip(), repeated(snip(), times=5))
        )
        assert often.per_tensor() == once.per_tensor() and often != once
        now, amount = often, Rate(0.3)


class Rude:
    def __init__(self, masks: Masks) -> None:
        self.masks = masks

    def __call__(self, scores: Scores, now: Masks, amount: Amount) -> Masks:
        return self.masks


def test_allocations_that_misbehave_are_refused() -> None:
    model = nn.Linear(2, 1, bias=False)
    now = Masks({"weight": torch.tensor([[True, False]])})
    with pytest.raises(MaskError, match="revives weights of 'weight'"):
        prune(model, now, 0.5, allocation=Rude(Masks({"weight": torch.tensor([[True, True]])})))
    with pytest.raises(MaskError, match=r"'weight' in shape \(2,\), not \(1, 2\)"):
        prune(model, now, 0.5, allocation=Rude(Masks({"weight": torch.tensor([True, False])})))
    with pytest.raises(MaskError, match=r"returned masks for \['other'\]"):
        prune(model, now, 0.5, allocation=Rude(Masks({"other": torch.tensor([True])})))
    assert prune(model, now, 0.5, scorer=magnitude()).kept == 1
