"""``prunekit study``: dense training, tickets and controls over seeds, in processes of their own, and one report."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

import typer
from rich.console import Console
from rich.markdown import Markdown

from prunekit.cli.study_verb import StudyAsked
from prunekit.errors import Failed, Interrupted, RecipeError
from prunekit.job import bind_job
from prunekit.recipe import read_recipe
from prunekit.registry import Registry
from prunekit.store import Run
from prunekit.study.arms import ARMS, Arm, Base, base_of, choose
from prunekit.study.budget import plans_of, refuse_shapes, refuse_unequal, steps_of
from prunekit.study.clock import Clock
from prunekit.study.folder import Asked, open_study, plan_works, refuse_strangers, write_failed
from prunekit.study.measured import Results
from prunekit.study.page import write_study_report
from prunekit.study.plots import refuse_bare
from prunekit.study.pools import Cluster, Here, refuse_silent
from prunekit.study.results import read_arms
from prunekit.study.single import Each, read_each, single_arms
from prunekit.study.spec import Study, read_study
from prunekit.study.walk import Work, walk


@final
@dataclass(frozen=True)
class _Bound:
    """A study, its arms in an order in which they can be done, and the optimiser steps of all."""

    study: Study
    base: Base
    each: Each | None
    arms: dict[str, Arm]
    steps: int

    @property
    def asked(self) -> Asked:
        """What the reports go by."""
        return Asked(tuple(name for name in self.arms if name in ARMS), self.study.margin, self.each)


def run_study(name: str, overrides: Sequence[str], asked: StudyAsked) -> None:
    """Run every arm for every seed, or on from where it stopped; write and print the report."""
    if asked.ray is not None:
        refuse_silent(asked.ray)  # at once; finding out what else is wrong takes seconds
    refuse_bare()
    bound = _bind(read_study(name, overrides, asked.given))
    folder = asked.out or Path("studies") / f"{Path(name).stem}-{bound.base.recipe.digest()}"
    command = shlex.join(["prunekit", *sys.argv[1:]])
    pool = _pool(asked, len(bound.arms) * bound.study.seeds)
    refuse_strangers(folder)
    with closing(Run(folder)) as held, _stopping(command):
        held.acquire()
        open_study(folder, bound.base, bound.asked)
        works = plan_works(folder, bound.base, bound.arms, bound.study.seeds)
        failed = _walk(folder, works, bound, pool)
        write_failed(folder, failed)
        first = bound.base.recipe.seed
        results = read_arms(folder, bound.arms, range(first, first + bound.study.seeds))
        files = write_study_report(Results(folder, results, failed, bound.asked, command))
        Console().print(Markdown(files[0].read_text(encoding="utf-8").partition("## Against")[0]))
        typer.echo("\n".join(map(str, files)))
    if failed:
        raise Failed(
            f"{len(failed)} of {len(works)} runs failed; the report says which. Mend it; the same command goes on."
        )


def _bind(study: Study) -> _Bound:
    """Find all that is wrong with a study before anything is written."""
    registry = Registry.discover()
    job = bind_job(read_recipe(study.recipe, study.overrides, registry), registry)
    base = base_of(job, study.k)
    each = None if study.each is None else read_each(study.each, base.recipe)
    arms = choose([*study.arms, *(["imp"] if each else [])]) | (single_arms(each) if each else {})
    refuse_shapes(job, arms)
    plans = plans_of(arms, base, registry)
    refuse_unequal(plans, base)
    return _Bound(study, base, each, arms, steps_of(plans, arms, study.seeds))


def _pool(asked: StudyAsked, most: int) -> Here | Cluster:
    if asked.device not in ("auto", "cpu"):
        raise RecipeError(f"--device must be auto or cpu, not {asked.device!r}.")
    if asked.ray is not None:
        return Cluster(asked.ray, asked.device, asked.options, asked.jobs, most)
    return Here(asked.device, asked.options, asked.jobs, most)


def _walk(folder: Path, works: Sequence[Work], bound: _Bound, pool: Here | Cluster) -> dict[tuple[str, int], str]:
    typer.echo(
        f"{folder}: {len(works)} runs of {bound.steps:,} steps in all, {pool.jobs} at a time; the same command "
        "continues a study that stopped."
    )
    clock = Clock(folder)
    with pool:
        return walk(works, pool, tell=typer.echo, beat=clock.beat)


@contextmanager
def _stopping(command: str) -> Iterator[None]:
    """Let SIGTERM stop as Ctrl-C does, and say how to go on."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"the study stopped; what is done stays done. Go on with: {command}") from None
    finally:
        signal.signal(signal.SIGTERM, before)
