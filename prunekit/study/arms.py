"""The arms of a study: a recipe with iterative pruning, turned into each way of pruning and each control."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from prunekit.errors import RecipeError, nearest
from prunekit.job import Job
from prunekit.recipe import Named, Recipe

DENSE, TICKET = "dense", "imp"
CONTROLS = ("random", "shuffled", "reinit")


@final
@dataclass(frozen=True)
class Base:
    """What all arms of a seed share.

    Args:
        recipe: of iterative pruning, with its seed.
        steps: length of one training, in optimiser steps.
        k: step that ``imp-k`` rewinds to.
        density: the last density of the recipe's schedule, as its ``of`` has it.
    """

    recipe: Recipe
    steps: int
    k: int
    density: float

    def iterative(self, rewind: str, **other: Any) -> Recipe:
        """Return the recipe with another rewind point."""
        return self._with(Named.model_validate({**self.recipe.strategy.model_dump(), "rewind": rewind, **other}))

    def at_init(self, scorer: dict[str, Any], rewind: str = "init") -> Recipe:
        """Return the recipe cut once before training, by another scorer."""
        strategy = Named.model_validate(
            {"name": "at_init", "density": self.density, "of": self.of, "rewind": rewind, "keep": self._keep()}
        )
        prune = Named.model_validate({**self.recipe.prune.model_dump(), "scorer": scorer})
        return self._with(strategy).model_copy(update={"prune": prune})

    def random(self) -> Recipe:
        """Return the recipe cut at random places before training."""
        return self.at_init({"name": "random", "seed": self.recipe.seed})

    def dense(self) -> Recipe:
        """Return the recipe that cuts nothing and keeps what the others rewind to."""
        return self._with(Named.model_validate({"name": "dense", "keep_steps": [self.k]}))

    @property
    def of(self) -> str:
        """What densities are shares of."""
        return str(self.recipe.strategy.options.get("of", "prunable"))

    def with_seed(self, seed: int) -> Base:
        """Return the same with another seed."""
        return replace(self, recipe=self.recipe.model_copy(update={"seed": seed}))

    def on(self, options: Mapping[str, Any]) -> Base:
        """Return the same with other options of the task."""
        task = Named.model_validate({**self.recipe.task.model_dump(), **options})
        return replace(self, recipe=self.recipe.model_copy(update={"task": task}))

    def _keep(self) -> list[str]:
        return list(self.recipe.strategy.options.get("keep", ()))

    def _with(self, strategy: Named) -> Recipe:
        return self.recipe.model_copy(update={"strategy": strategy})


@final
@dataclass(frozen=True)
class Arm:
    """How an arm's recipe is made, and what it needs.

    Args:
        recipe: makes it, from what all share and the folder of the seed's runs.
        after: the arm that must be done before: a dense one is taken over, of another one the ticket.
    """

    recipe: Callable[[Base, Path], Recipe]
    after: str | None

    @property
    def of_ticket(self) -> bool:
        """Whether its recipe names the ticket of another arm."""
        return self.after is not None and not is_dense(self.after)


def place(runs: Path, arm: str) -> str:
    """Return where an arm's run is, for another one's recipe: the same wherever the command is given."""
    return os.path.abspath(runs / arm)  # noqa: PTH100  (links stay as they are)


def is_dense(arm: str) -> bool:
    """Tell whether that is the arm of a dense network."""
    return arm == DENSE or arm.startswith(f"{DENSE}-on-")


def _one_shot(base: Base, _: Path) -> Recipe:
    schedule = {"name": "explicit", "densities": [base.density]}
    return base.iterative(f"lr:{base.steps}", schedule=schedule, rounds=1, keep=[])


ARMS = {
    DENSE: Arm(lambda base, _: base.dense(), None),
    TICKET: Arm(lambda base, _: base.iterative("init"), DENSE),
    "imp-k": Arm(lambda base, _: base.iterative(f"step:{base.k}"), DENSE),
    "lr-rewind": Arm(lambda base, _: base.iterative(f"lr:{base.steps}", keep=[]), DENSE),
    "one-shot": Arm(_one_shot, DENSE),
    "random": Arm(lambda base, _: base.random(), None),
    "shuffled": Arm(
        lambda base, runs: base.at_init({"name": "ticket", "masks": place(runs, TICKET), "shuffle": base.recipe.seed}),
        TICKET,
    ),
    "reinit": Arm(
        lambda base, runs: base.at_init(
            {"name": "ticket", "masks": place(runs, TICKET)}, rewind=f"reinit:{base.recipe.seed + 1_000_003}"
        ),
        TICKET,
    ),
}
"""Name -> arm. Every arm ends with one whole training after its last cut; ``imp-k`` with all of it but k steps."""


def choose(names: Sequence[str]) -> dict[str, Arm]:
    """Return the arms to run by name, in the order in which they can: those that others need are added.

    Raises:
        RecipeError: an unknown arm, or none.

    Example:
        >>> tuple(choose(["shuffled"]))
        ('dense', 'imp', 'shuffled')
    """
    wanted = set()
    for name in names:
        if name not in ARMS:
            raise RecipeError(f"arms: there is no arm {name!r}: {nearest(name, ARMS)}")
        needed: str | None = name
        while needed is not None:
            wanted.add(needed)
            needed = ARMS[needed].after
    if not wanted:
        raise RecipeError(f"arms: name at least one of {', '.join(ARMS)}.")
    return {name: arm for name, arm in ARMS.items() if name in wanted | {DENSE}}


def base_of(job: Job, k: int | None) -> Base:
    """Return what the arms share.

    Args:
        job: the recipe's, bound.
        k: step that ``imp-k`` rewinds to; by default a twentieth of the training.

    Raises:
        RecipeError: the recipe does not prune iteratively after a dense training, or k is outside it.
    """
    recipe, steps = job.recipe, job.plan[0].end
    if recipe.strategy.name != "iterative" or not steps or job.tracks:
        raise RecipeError(
            "a study needs a recipe whose strategy is iterative with a dense training first, and a scorer that does "
            f"not watch that training; this one's strategy is {recipe.strategy.name}."
        )
    k = max(1, steps // 20) if k is None else k
    if not 0 < k < steps:
        raise RecipeError(f"k is {k}: it must lie within the training, above 0 and below {steps}.")
    schedule, rounds = recipe.strategy.options["schedule"], recipe.strategy.options["rounds"]
    return Base(recipe, steps, k, _last(schedule, rounds))


def _last(schedule: Any, rounds: int) -> float:
    options = schedule if isinstance(schedule, dict) else schedule.model_dump()
    if "density" in options:
        return float(options["density"])
    if "densities" in options:
        return float(options["densities"][-1])
    if "value" in options:
        return float((1 - options["value"]) ** rounds)
    raise RecipeError(f"strategy.schedule: a study cannot read the last density of {options.get('name')!r}.")
