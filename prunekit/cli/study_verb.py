"""The signature and help of ``prunekit study`` (no torch here; the work is in `prunekit.cli.study`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, final

import typer

from prunekit.cli.options import Device, Overrides


@final
@dataclass(frozen=True)
class StudyAsked:
    """What ``prunekit study`` is asked for beside the recipe.

    Args:
        given: what decides the result, by the names of a study file's keys; None where it was not given.
        jobs, out, device, drift, ray: where and how it is run.
    """

    given: Mapping[str, Any]
    jobs: int | None
    out: Path | None
    device: str
    ray: str | None
    drift: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """Options of every run."""
        return ("--device", self.device, *(["--drift"] if self.drift else []))


def study(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE|STUDY", help="A recipe's name, its YAML file, or a study's YAML file.")
    ],
    overrides: Overrides = None,
    arms: Annotated[
        str | None, typer.Option(help="With commas between; default all; what an arm needs is added.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="How many, from the recipe's on; default 3.")] = None,
    k: Annotated[int | None, typer.Option("--k", help="Step that imp-k rewinds to; default a twentieth.")] = None,
    margin: Annotated[
        float | None, typer.Option(help="How much worse than dense is as good, in the first metric; default 0.1.")
    ] = None,
    each: Annotated[
        str | None, typer.Option(metavar="task.OPTION=NAME,NAME,...", help="Tasks to be looked at alone, too.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time; default one a GPU, or one a core.")] = None,
    out: Annotated[Path | None, typer.Option(help="Study directory; default studies/RECIPE-HASH.")] = None,
    device: Device = "auto",
    drift: Annotated[
        bool, typer.Option("--drift", help="Go on with runs begun elsewhere; they are then not bit-identical.")
    ] = False,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Run on a Ray cluster, e.g. auto.")] = None,
) -> None:
    """Is it a winning ticket? Tickets, controls and dense training over seeds; the same command continues it."""
    from prunekit.cli.study import run_study

    names = None if arms is None else [name.strip() for name in arms.split(",") if name.strip()]
    given = {"arms": names, "seeds": seeds, "k": k, "margin": margin, "each": each}
    run_study(recipe, overrides or [], StudyAsked(given, jobs, out, device, ray, drift))
