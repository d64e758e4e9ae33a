"""The laws of `prunekit.testing`, over everything that is registered."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from prunekit.allocate import Allocation
from prunekit.amount import Amount, Density, MacDensity, Rate, Target
from prunekit.gradients import snip
from prunekit.masks import Masks
from prunekit.measure import macs_per_tensor
from prunekit.plan import Plan, at_init, dense, gradual, iterative, one_shot
from prunekit.pruner import prune
from prunekit.registry import BUILT_IN, Registry
from prunekit.schedule import cosine, geometric
from prunekit.score import Scorer, random
from prunekit.testing import (
    AMOUNTS,
    check_allocation,
    check_cut,
    check_schedule,
    check_scorer,
    check_strategy,
    check_structured_cut,
    example_data,
    example_model,
)

REGISTRY = Registry.discover([])


def some_masks(density: float = 0.3) -> Masks:
    return prune(example_model(), Masks.dense(example_model()), density, scorer=random(seed=3))


OPTIONS: dict[str, dict[str, object]] = {
    "random": {"seed": 0},
    "ticket": {"masks": some_masks(), "shuffle": 4},
    "repeated": {"scorer": snip(), "times": 3},
    "synflow": {"times": 5},
}
ONLY: dict[str, tuple[Amount, ...]] = {"n_of_m": (Density(0.5),)}

SCORERS: dict[str, Callable[[], Scorer]] = {
    name: partial(REGISTRY.get("scorer", name), **OPTIONS.get(name, {})) for name in BUILT_IN["scorer"]
}
ALLOCATIONS: dict[str, Callable[[], Allocation]] = {
    name: REGISTRY.get("allocation", name) for name in BUILT_IN["allocation"]
}


def half_the_macs() -> MacDensity:
    model = example_model()
    macs = {name: each.dense for name, each in macs_per_tensor(model, next(example_data().inputs(model))).items()}
    cost = {name: macs.pop(name) for name in Masks.dense(model)}
    return MacDensity(0.5, cost, sum(macs.values()))


def one_image_at(density: float) -> MacDensity:
    model = example_model()
    macs = macs_per_tensor(model, next(example_data().inputs(model))[:1])
    return MacDensity(density, {name: each.dense for name, each in macs.items()})


@pytest.mark.parametrize("name", SCORERS)
def test_scorer(name: str) -> None:
    check_scorer(SCORERS[name])


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_allocation(name: str) -> None:
    check_allocation(ALLOCATIONS[name], amounts=ONLY.get(name, AMOUNTS))


TARGETS: dict[str, Target] = {"density": Density(0.5), "macs": half_the_macs()}
CUTS = [
    (scorer, allocation, target)
    for scorer in SCORERS
    for allocation in ALLOCATIONS
    for target in TARGETS
    # A pattern has one density, which is reached in one cut.
    if allocation != "n_of_m" or (target == "density" and getattr(SCORERS[scorer](), "times", 1) == 1)
]


@pytest.mark.parametrize(("scorer", "allocation", "target"), CUTS)
def test_cut(scorer: str, allocation: str, target: str) -> None:
    check_cut(SCORERS[scorer], ALLOCATIONS[allocation], TARGETS[target])


@pytest.mark.slow
@pytest.mark.parametrize("scorer", sorted(SCORERS.keys() - {"ticket"}))  # a ticket scores single weights only
def test_structured_cut(scorer: str) -> None:
    check_structured_cut(SCORERS[scorer], Density(0.5))


@pytest.mark.parametrize("amount", [Density(1.0), Rate(0.2), one_image_at(0.5)], ids=["all", "rate", "macs"])
def test_structured_cut_to(amount: Target) -> None:
    check_structured_cut(SCORERS["magnitude"], amount)


@pytest.mark.parametrize("name", sorted(set(BUILT_IN["schedule"]) - {"rate", "explicit"}))
@pytest.mark.parametrize("density", [1.0, 0.5, 0.013])
def test_schedule(name: str, density: float) -> None:
    schedule = REGISTRY.get("schedule", name)(density)
    check_schedule(schedule)
    assert schedule(0.0) == 1 and schedule(1.0) == pytest.approx(density)


def test_explicit_schedule() -> None:
    check_schedule(REGISTRY.get("schedule", "explicit")([0.7, 0.7, 0.1]))


STRATEGIES: dict[str, Callable[[int], Plan]] = {
    "iterative": lambda steps: iterative(steps, geometric(0.1), rounds=3, rewind="init"),
    "one_shot": lambda steps: one_shot(steps, density=0.1, finetune=1),
    "dense": lambda steps: dense(steps, keep_steps=[steps // 2]),
    "at_init": lambda steps: at_init(steps, density=0.1, rewind="reinit:7"),
    "gradual": lambda steps: gradual(steps, cosine(0.1), begin=0, end=steps, every=3),
}


@pytest.mark.parametrize("name", BUILT_IN["strategy"])
def test_strategy(name: str) -> None:
    check_strategy(STRATEGIES[name])
