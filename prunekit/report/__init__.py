"""Reports of a run, made from its directory alone: Markdown, CSV and pictures."""

from __future__ import annotations

from pathlib import Path

from prunekit.errors import PruneKitError, RunError
from prunekit.files import write_text
from prunekit.report.markdown import disk_use, page
from prunekit.report.plots import draw
from prunekit.report.results import read_results, unfinished
from prunekit.report.sheets import measures_csv, results_csv


def write_report(run: Path, out: Path | None = None) -> list[Path]:
    """Write ``report.md``, ``results.csv``, ``measures.csv`` and pictures; the same run gives the same files.

    Args:
        run: a run directory, finished or not; only ``out`` is written to.
        out: folder for the report, made where it is missing; ``run/report`` by default.

    Returns:
        The files, ``report.md`` first.

    Raises:
        RunError: not a run directory, no stage finished yet, or a damaged file.
        PruneKitError: matplotlib is missing; all but the pictures is written then.
    """
    results = read_results(run)
    if not results:
        first = unfinished(run)[0]
        raise RunError(f"{run} has no finished stage to report: {first} is not done; give the run's command again.")
    folder = out or run / "report"
    pictures: list[Path] = []
    failure: PruneKitError | None = None
    try:
        pictures = draw(run, results, folder)
    except PruneKitError as cause:  # the numbers are worth having without the pictures
        failure = cause
    disk_bytes = disk_use(run, folder, run / "report", run / "tensorboard")
    texts = {
        "report.md": page(run, results, [picture.name for picture in pictures], disk_bytes),
        "results.csv": results_csv(results),
        "measures.csv": measures_csv(results),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    if failure is not None:
        raise failure
    return [*(folder / name for name in texts), *pictures]
