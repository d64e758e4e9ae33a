"""The verbs about what is there: ``report``, ``runs`` and ``doctor``; signatures only, as in `prunekit.cli.app`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunekit.errors import RunError

Reported = Annotated[
    list[Path], typer.Argument(metavar="RUN|STUDY...", help="A run directory, several, or a study's directory.")
]
Margin = Annotated[
    float | None, typer.Option(help="Of a study: how much worse than dense is as good; default the study's own.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs, on standard output.")]
Curves = Annotated[bool, typer.Option("--tensorboard", help="Write curves for TensorBoard into RUN/tensorboard.")]


def report(
    runs: Reported,
    html: Annotated[
        bool, typer.Option("--html", help="One page with plots and pictures, to look at and to send.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder; default RUN/report, of several ./report.")] = None,
    margin: Margin = None,
) -> None:
    """Write Markdown, CSV and plots of a run, finished or not; with --html one page, of several runs side by side."""
    studies = [run for run in runs if (run / "study.yaml").is_file()]
    if studies and (not html or len(runs) > 1):
        raise RunError(f"{studies[0]} is a study: name it alone with --html; its report.md comes from prunekit study.")
    if margin is not None and not studies:
        raise RunError("--margin is for a study: leave it out, or name a study's directory.")
    if html:
        file = _page(runs, out, margin, study=bool(studies))
        typer.echo(f"{file}  ({file.stat().st_size / 1e6:.1f} MB)")
        return
    if out is not None and len(runs) > 1:
        raise RunError("--out takes the report of one run; leave it out, or compare the runs with --html.")
    from prunekit.report import write_report

    for run in runs:
        for path in write_report(run, out):
            typer.echo(str(path))


def _page(runs: list[Path], out: Path | None, margin: float | None, *, study: bool) -> Path:
    if study:
        from prunekit.study.html import write_study_html

        return write_study_html(runs[0], margin=margin, out=out)
    if len(runs) == 1:
        from prunekit.report.html import write_html

        return write_html(runs[0], out)
    from prunekit.report.compare import write_comparison

    return write_comparison(runs, out or Path("report"))


def runs(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where the runs are.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List runs: task, stages done, what is kept, the first score, size, last change, whether one is running."""
    from prunekit.cli.listing import show_runs

    show_runs(folder, as_json=as_json)


def doctor(as_json: AsJson = False) -> None:
    """Look at versions, devices, threads, kernels, plugins and data; say what is missing and what mends it."""
    from prunekit.cli.doctor import show_doctor

    show_doctor(as_json=as_json)
