"""``prunekit sensitivity``: which tensors a network can spare, one by one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch import nn

from prunekit.amount import Density
from prunekit.bench.plot import check_plot
from prunekit.bench.result import shape_text
from prunekit.calibration import Calibration
from prunekit.cli.bench import telling
from prunekit.cli.calibrate import Data, choose, find_data, mean_psnr_db, open_source, resolved, worded
from prunekit.cli.export import opening, remarks
from prunekit.cli.inspect import short
from prunekit.cli.options import Origin, Pictures
from prunekit.cli.pace import span
from prunekit.cli.watch import LINE_EVERY_S, REFRESH_S
from prunekit.errors import SelectionError
from prunekit.files import refuse_existing, write_text
from prunekit.report.sensitivity import CHANGE, LOSS, PSNR, Reading, draw_sensitivity, sensitivity_csv
from prunekit.sensitivities import Badness, Sensitivity, mean_loss, output_change, sensitivity
from prunekit.sparse.ticket import Ticket


def show_sensitivity(
    origin: Origin,
    pictures: Pictures,
    *,
    densities: str,
    scorer: str,
    include: Sequence[str],
    exclude: Sequence[str],
    file: Path | None,
    plot: Path | None,
) -> None:
    """Cut each tensor alone, print the table, write the CSV and draw; both files are checked first."""
    for path in (file, plot):
        if path is not None:
            refuse_existing(path)
    if plot is not None:
        check_plot(plot, ())
    wanted, score = _parsed(densities), resolved("scorer", scorer)
    ticket = open_source(origin)
    model = ticket.model()
    masks = choose(ticket, model, include, exclude)
    data = find_data(origin, model, pictures)
    looked_at = worded(scorer, score, data)
    measure, reading, told = _measure(ticket, model, data)
    with _progress() as progress:
        rows = sensitivity(
            model, looked_at, masks=masks, densities=wanted, scorer=score, measure=measure, progress=progress
        )
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for line in (opening(origin.source, ticket), *remarks(ticket), told, _before(rows[0], reading)):
        console.print(line)
    console.print(table(rows, reading), soft_wrap=False)
    if file is not None:
        write_text(file, sensitivity_csv(rows, reading))
        console.print(f"{file}: every column")
    if plot is not None:
        draw_sensitivity(rows, reading, plot)
        console.print(f"{plot}: {reading.title} of every tensor")


def table(rows: Sequence[Sensitivity], reading: Reading) -> Table:
    """Return a line for each tensor, with what its cut costs at each density."""
    shown = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("tensor", overflow="fold")
    for title in ("shape", "weights", *(f"{100 * density:.3g}%" for density in rows[0].densities)):
        shown.add_column(title, justify="left" if title == "shape" else "right", no_wrap=True)
    for row in rows:
        shown.add_row(row.tensor, shape_text(row.shape), short(row.size), *map(reading.text, row.rise))
    return shown


def _parsed(text: str) -> list[float]:
    try:
        return [Density(float(each)).value for each in text.split(",")]
    except ValueError as cause:
        raise SelectionError(f"--densities must be numbers joined by commas, as 0.5,0.2,0.1, not {text!r}.") from cause


def _measure(ticket: Ticket, model: nn.Module, data: Data | None) -> tuple[Badness, Reading, str]:
    """Return how a cut is measured, how that is written, and on what it is done, in words."""
    if data is None:
        shape = shape_text(tuple(ticket.example().shape))
        told = f"measured on one random input of {shape}, as there is no data: --calibrate DIR gives some"
        return output_change(model, Calibration([ticket.example()])), CHANGE, told
    told = f"measured on {data.told}"
    if data.calibration.loss is None:
        return output_change(model, data.calibration), CHANGE, told
    if data.squared:
        return lambda model: -mean_psnr_db(data.losses(model)), PSNR, told
    return mean_loss(data.calibration), LOSS, told


def _before(row: Sensitivity, reading: Reading) -> str:
    if reading is CHANGE:
        return "change of the output, relative to its size, where one tensor alone keeps so much:"
    whole = f"PSNR {-row.before:.2f} dB" if reading is PSNR else f"loss {row.before:.4g}"
    return f"{whole} as it is; {reading.title} where one tensor alone keeps so much:"


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Say on stderr how far it is, not more often than a person can read."""
    every_s = REFRESH_S if sys.stderr.isatty() else LINE_EVERY_S
    began_s = last_s = time.monotonic()
    with telling() as tell:

        def progress(done: int, whole: int) -> None:
            nonlocal last_s
            now_s = time.monotonic()
            if now_s - last_s >= every_s:
                last_s = now_s
                tell(f"{done} of {whole} cuts measured, {span((whole - done) * (now_s - began_s) / done)} left")

        yield progress
