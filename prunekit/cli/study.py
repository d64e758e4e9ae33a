"""``prunekit study``: dense training, tickets and controls over seeds, in processes of their own, and one report."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import typer
from rich.console import Console
from rich.markdown import Markdown

from prunekit.cli.options import StudyAsked
from prunekit.errors import Failed, RecipeError
from prunekit.job import bind_job
from prunekit.plan import Plan
from prunekit.recipe import Recipe, read_recipe
from prunekit.registry import Registry
from prunekit.store import Run
from prunekit.study.arms import ARMS, TICKET, Base, base_of, choose
from prunekit.study.folder import open_study, plan_works
from prunekit.study.page import write_study_report
from prunekit.study.results import read_arms
from prunekit.study.walk import walk


def run_study(name: str, overrides: Sequence[str], asked: StudyAsked) -> None:
    """Run every arm for every seed, or on from where it stopped; write and print the report."""
    arms = choose([each.strip() for each in asked.arms.split(",") if each.strip()])
    if asked.seeds < 1:
        raise RecipeError(f"--seeds must be at least 1, not {asked.seeds}: how many seeds each arm is run with.")
    if not asked.margin > 0:
        raise RecipeError(
            f"--margin must be above 0, not {asked.margin:g}: how much worse than dense is still as good."
        )
    registry = Registry.discover()
    job = bind_job(read_recipe(name, overrides, registry), registry)
    base = base_of(job, asked.k)
    folder = asked.out or Path("studies") / f"{Path(name).stem}-{job.recipe.digest()}"
    refuse_unequal({arm: _plan(base, arm, folder, registry) for arm in arms}, base)
    jobs = asked.jobs or min(os.cpu_count() or 1, len(arms) * asked.seeds)
    command = shlex.join(["prunekit", *sys.argv[1:]])
    with closing(Run(folder)) as held:
        held.acquire()
        open_study(folder, base)
        works = plan_works(folder, base, arms, asked.seeds)
        typer.echo(f"{folder}: {len(works)} runs, {jobs} at a time; the same command continues a study that stopped.")
        failed = walk(works, jobs=jobs, device=asked.device, tell=typer.echo)
        results = read_arms(folder, arms, range(base.recipe.seed, base.recipe.seed + asked.seeds))
        if results:
            files = write_study_report(folder, results, failed, margin=asked.margin, command=command)
            Console().print(Markdown(files[0].read_text(encoding="utf-8").partition("## Against")[0]))
            typer.echo("\n".join(map(str, files)))
    if failed:
        raise Failed(
            f"{len(failed)} of {len(works)} runs failed; the report says which. Mend it; the same command goes on."
        )


def _plan(base: Base, arm: str, folder: Path, registry: Registry) -> Plan:
    """Return an arm's plan; where it is made of a ticket that is not there yet, random places have the same."""
    recipe: Recipe = ARMS["random" if ARMS[arm].after == TICKET else arm].recipe(base, folder)
    return bind_job(recipe, registry).plan


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
            f"the arms share no budget: after the last cut {base.steps:,} steps are due, and there are: {listed}."
        )
