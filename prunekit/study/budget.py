"""What the arms of a study train: the same steps after the last cut, and how many steps in all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prunekit.errors import RecipeError
from prunekit.job import Job, bind_job
from prunekit.plan import Plan
from prunekit.registry import Registry
from prunekit.shape import Shape
from prunekit.study.arms import ARMS, TICKET, Arm, Base, is_dense


def plans_of(arms: Mapping[str, Arm], base: Base, registry: Registry) -> dict[str, Plan]:
    """Return every arm's plan, with all that can be wrong found now.

    An arm that takes over a ticket has the plan of random places, as its ticket is not there yet. A ticket of a single
    task has the plan of all tasks' one: the dense training of that task tells whether it is as long.
    """
    own = {name: arm for name, arm in arms.items() if is_dense(name) or (name in ARMS and not arm.of_ticket)}
    plans = {name: bind_job(arm.recipe(base, Path()), registry).plan for name, arm in own.items()}
    if len(plans) == len(arms):
        return plans
    at_init = plans["random"] if "random" in plans else bind_job(base.random(), registry).plan
    return {
        name: plans[name] if name in plans else plans[TICKET] if _retrained(arm) else at_init
        for name, arm in arms.items()
    }


def _retrained(arm: Arm) -> bool:
    """Tell whether the arm goes on from a dense training."""
    return arm.after is not None and is_dense(arm.after)


def refuse_shapes(job: Job, arms: Mapping[str, Arm]) -> None:
    """Refuse arms that take over a ticket's masks where cuts remove whole channels.

    Raises:
        RecipeError: there are such arms.
    """
    taking = [name for name, arm in arms.items() if arm.of_ticket]
    if taking and isinstance(job.pruner.start(job.model()), Shape):
        raise RecipeError(
            f"the pruner {job.recipe.prune.name!r} removes whole channels, so its tickets have no masks that "
            f"{', '.join(taking)} could take over: leave these arms out (and --each)."
        )


def refuse_unequal(plans: Mapping[str, Plan], base: Base) -> None:
    """Refuse arms that train for different numbers of steps after their last cut.

    ``imp-k`` starts from weights that have k steps behind them and trains k fewer: as its definition has it.

    Raises:
        RecipeError: they share no budget.
    """
    after = {arm: plan[-1].end - plan[-1].start.clock for arm, plan in plans.items()}
    other = {arm: steps for arm, steps in after.items() if steps + (base.k if arm == "imp-k" else 0) != base.steps}
    if other:
        listed = ", ".join(f"{arm} {steps:,}" for arm, steps in other.items())
        raise RecipeError(
            f"the arms share no budget: after the last cut {base.steps:,} steps are due, and there are: {listed}. "
            "State the training's length in steps."
        )


def steps_of(plans: Mapping[str, Plan], arms: Mapping[str, Arm], seeds: int) -> int:
    """Return the optimiser steps of all arms over all seeds, a dense training that is taken over counted once."""
    total = 0
    for name, plan in plans.items():
        own = plan[1:] if _retrained(arms[name]) else plan
        total += sum(stage.end - stage.start.clock for stage in own)
    return total * seeds
