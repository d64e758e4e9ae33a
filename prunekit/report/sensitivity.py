"""Sensitivities as CSV and as a picture (matplotlib)."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

from prunekit.files import write_atomic
from prunekit.report.plots import INK, RED, STYLE, apart
from prunekit.sensitivities import Sensitivity

NAMED = 65
"""So many names find room below the picture."""


@final
@dataclass(frozen=True)
class Reading:
    """How a measure is told to people.

    Args:
        name: of the column in the CSV, e.g. ``"psnr_db"``.
        title: of what is shown, the rise, e.g. ``"PSNR lost (dB)"``.
        text: writes one value of it.
        sign: -1 for what is better the higher, and so was measured with its sign reversed.
    """

    name: str
    title: str
    text: Callable[[float], str]
    sign: int = 1


PSNR = Reading("psnr_db", "PSNR lost (dB)", lambda value: f"{value:.2f}", -1)
LOSS = Reading("loss", "rise of the loss", lambda value: f"{value:.3g}")
CHANGE = Reading("output_change", "change of the output", lambda value: f"{100 * value:.2f}%")


def sensitivity_csv(rows: Sequence[Sensitivity], reading: Reading) -> str:
    """Return a line for each tensor and density, the most sensitive tensor first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ("rank", "place", "tensor", "shape", "weights", "density", "kept")
    writer.writerow((*header, f"{reading.name}_before", f"{reading.name}_after", "worse_by"))
    for rank, row in enumerate(rows, start=1):
        told = (rank, row.place, row.tensor, "x".join(map(str, row.shape)), row.size)
        for density, kept, after, rise in zip(row.densities, row.kept, row.after, row.rise, strict=True):
            writer.writerow((*told, density, kept, reading.sign * row.before, reading.sign * after, rise))
    return text.getvalue()


def draw_sensitivity(rows: Sequence[Sensitivity], reading: Reading, file: Path) -> None:
    """Draw a line for each density over the tensors in model order; crosses where the measure is not finite.

    Args:
        rows: from `prunekit.sensitivity`.
        reading: of their measure.
        file: .png or .svg.
    """
    from matplotlib import colormaps, style
    from matplotlib.figure import Figure  # without pyplot: no window system, nothing global

    ordered = sorted(rows, key=lambda row: row.place)
    with style.context(["default", STYLE, {"svg.hashsalt": "prunekit"}]):
        longest = max(len(row.tensor) for row in rows)
        width = min(12.0, max(5.0, 2.5 + 0.28 * len(rows)))
        figure = Figure(figsize=(width, 3.6 + 0.055 * longest))
        axes = figure.subplots()
        densities = ordered[0].densities
        finite = [rise for row in rows for rise in row.rise if math.isfinite(rise)]
        for index, density in enumerate(densities):
            y = [row.rise[index] if math.isfinite(row.rise[index]) else math.nan for row in ordered]
            shade = colormaps["viridis"](0.85 * (1 - index / max(1, len(densities) - 1)))
            label = f"{100 * density:.3g} % kept"
            axes.plot(range(len(y)), y, color=shade, marker="o", ms=4 if len(y) <= NAMED else 2, lw=1, label=label)
        broken = [place for place, row in enumerate(ordered) if not all(map(math.isfinite, row.rise))]
        if broken:
            top = max(finite, default=1.0)
            axes.plot(broken, [top] * len(broken), "x", color=RED, ms=7, mew=1.8, label="not finite")
        axes.axhline(0, color=INK, lw=0.8)
        axes.set(ylabel=reading.title, xlim=(-0.7, len(ordered) - 0.3))
        axes.grid(visible=False, axis="x")
        _name(axes, rows)
        axes.set_title(f"{len(rows)} tensors in model order, each cut alone", loc="left")
        figure.legend(loc="outside upper right", ncols=min(5, len(densities) + 1))
        kind = file.suffix[1:]
        metadata = {"png": {"Software": None}, "svg": {"Date": None}}[kind]  # equal rows make equal files
        write_atomic(file, partial(figure.savefig, format=kind, metadata=metadata))


def _name(axes: Any, rows: Sequence[Sensitivity]) -> None:
    """Name the tensors below the picture; where there are too many, the most sensitive that find room."""
    names = {float(row.place): row.tensor for row in rows}
    shown = apart(list(names), len(rows) / NAMED if len(rows) > NAMED else 0.0)
    axes.set_xticks(shown, [names[place] for place in shown], rotation=90, fontsize=7.5 if len(rows) <= NAMED else 6)
