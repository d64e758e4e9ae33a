"""Pruning: the defaults, what a scorer may do to a model, and densities of all against densities of the prunable."""

from __future__ import annotations

import random as python_random
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunekit.activations import wanda
from prunekit.allocate import per_layer
from prunekit.amount import Density, Rate
from prunekit.errors import SelectionError
from prunekit.flow import synflow
from prunekit.gradients import snip
from prunekit.masks import Masks, hold
from prunekit.pruner import Cut, Pruner, Unstructured, prune
from prunekit.rewind import restore, snapshot
from prunekit.score import Calibration, Scorer, magnitude
from prunekit.target import solve_total
from prunekit.testing import check_scorer, example_data, example_model


def test_default_is_global_magnitude() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -6.0], [2.0, -0.5]]))
        model[1].weight.copy_(torch.tensor([[-4.0, 3.0]]))
    masks = prune(model, Masks.dense(model), 0.5)
    assert masks["0.weight"].tolist() == [[False, True], [False, False]]
    assert masks["1.weight"].tolist() == [[True, True]]
    assert prune(model, masks, Rate(0.5))["1.weight"].tolist() == [[True, False]]
    assert model[0].weight[0, 0] == 1  # only read
    assert prune(model, masks, 1) == masks


@pytest.mark.parametrize("amount", [0.0, 1.5, -0.1, float("nan")])
def test_impossible_amounts(amount: float) -> None:
    model = example_model()
    with pytest.raises(SelectionError, match="density must be above 0 and at most 1"):
        prune(model, Masks.dense(model), amount)


def test_unstructured_is_a_pruner_and_masks_are_a_cut() -> None:
    pruner: Pruner[Masks] = Unstructured(magnitude(), per_layer(), include=("*.weight",), exclude=("1.*",))
    cut: Cut = pruner.start(example_model())
    assert isinstance(cut, Masks) and list(cut) == ["0.weight", "2.weight", "4.weight", "6.weight"]


def rude(model: nn.Module, data: Calibration) -> Mapping[str, Tensor]:
    """A scorer that leaves nothing as it was."""
    model.train()
    for loss in data.losses(model):
        loss.backward()
    scores = {name: torch.rand(p.shape) + python_random.random() for name, p in model.named_parameters()}
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.eval()
    return scores


def test_whatever_a_scorer_does_is_put_back() -> None:
    model = example_model()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        python_random.seed(5)
        check_scorer(lambda: seeded(rude))
    frozen = [parameter.requires_grad for parameter in model.parameters()]
    prune(model, Masks.dense(model), 0.5, scorer=rude, data=example_data())
    assert [parameter.requires_grad for parameter in model.parameters()] == frozen
    before = snapshot(model)

    def failing(model: nn.Module, data: Calibration) -> Mapping[str, Tensor]:
        rude(model, data)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        prune(model, Masks.dense(model), 0.5, scorer=failing, data=example_data())
    assert all(torch.equal(tensor, before[name]) for name, tensor in snapshot(model).items())


class Restless(nn.Module):
    """Draws from every generator, and puts another tensor in its buffer's place."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x) * (1 + torch.rand(3) * python_random.random() * float(np.random.rand()))
        self.mean = 0.9 * self.mean + 0.1 * y.detach().mean(0)
        return y - self.mean


@pytest.mark.parametrize("scorer", [snip(), wanda(), synflow(times=2), rude])
def test_a_buffer_that_is_replaced_and_every_random_state_come_back(scorer: Scorer) -> None:
    model = Restless()
    mean, states = model.mean, (torch.get_rng_state(), python_random.getstate(), str(np.random.get_state()))
    data = Calibration([torch.randn(2, 4, generator=torch.Generator())], lambda net, x: net(x).square().mean())
    prune(model, Masks.dense(model), 0.5, scorer=scorer, data=data)
    assert model.mean is mean and mean.tolist() == [0.0, 0.0, 0.0]
    after = torch.get_rng_state(), python_random.getstate(), str(np.random.get_state())
    assert torch.equal(states[0], after[0]) and states[1:] == after[1:]


def seeded(scorer):  # type: ignore[no-untyped-def]
    def score(model: nn.Module, data: Calibration) -> Mapping[str, Tensor]:
        torch.manual_seed(0)
        python_random.seed(0)
        return scorer(model, data)

    return score


def test_a_scorer_that_needs_data_says_so() -> None:
    model = example_model()
    with pytest.raises(SelectionError, match="looks at losses: pass data="):
        prune(model, Masks.dense(model), 0.5, scorer=rude)
    with pytest.raises(SelectionError, match="looks at network inputs: pass data="):
        prune(model, Masks.dense(model), 0.5, scorer=lambda model, data: {"": next(data.inputs(model))})


def test_solve_total_meets_the_asked_count_exactly() -> None:
    sizes = {"conv": 33_199_064, "prompt": 2_375_680, "bias": 17_359, "temperature": 160}
    for target in (0.1, 0.1001, 0.5, 0.8, 1.0):
        density = solve_total(target, sizes, ["conv"])
        kept = Density(density).keep(sizes["conv"], sizes["conv"])
        assert kept + sum(sizes.values()) - sizes["conv"] == round(target * sum(sizes.values()))
    assert solve_total(0.25, {"a": 100}, ["a"]) == 0.25


def test_solve_total_names_what_cannot_be_cut() -> None:
    sizes = {"conv": 90, "prompt": 8, "bias": 2}
    for target in (0.05, 0.1):  # at 10 % nothing prunable would be left
        with pytest.raises(SelectionError, match=r"10.00% \(10; the largest: prompt 8, bias 2\)"):
            solve_total(target, sizes, ["conv"])
    with pytest.raises(SelectionError, match="density must be"):
        solve_total(0.0, sizes, ["conv"])


def test_imp_on_ones_own_loop() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
    inputs, targets = torch.randn(64, 6), torch.randn(64, 2)

    def train() -> None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for _ in range(5):
            optimizer.zero_grad()
            (model(inputs) - targets).square().mean().backward()
            optimizer.step()

    start, masks = snapshot(model), Masks.dense(model)
    for density in (0.5, 0.25, 0.1):
        with hold(model, masks):
            train()
        before = masks
        masks = prune(model, masks, density)
        assert masks.kept == round(density * 128) and all(not (masks[name] & ~before[name]).any() for name in masks)
        restore(model, start, masks)
        assert torch.equal(model[0].weight, start["0.weight"] * masks["0.weight"])
        assert torch.equal(model[0].bias, start["0.bias"])
