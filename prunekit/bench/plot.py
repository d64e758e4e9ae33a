"""A picture of a bench: how much faster zeros make a network, against how many are left (matplotlib)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prunekit.bench.curve import Point, break_even, curve
from prunekit.bench.result import DENSE, REFERENCE, SPARSE, Bench, Setting, setting_text
from prunekit.errors import Failed, PruneKitError, RecipeError
from prunekit.files import write_atomic
from prunekit.report.plots import BLUE, INK, RED, STYLE, apart

KINDS = (".png", ".svg")
METADATA = {".png": {"Software": None}, ".svg": {"Date": None}}  # equal benches make equal files


def check_plot(file: Path, backends: Sequence[str]) -> None:
    """Refuse what could not be drawn, before anything is measured.

    Args:
        file: to be written.
        backends: names asked for; none for all.

    Raises:
        RecipeError: of another kind than .png and .svg, or the backends have nothing to compare.
        PruneKitError: matplotlib is missing.
    """
    if file.suffix not in KINDS:
        raise RecipeError(f"--plot writes {' or '.join(KINDS)}, not {file.name!r}; choose another ending.")
    if backends and (SPARSE not in backends or not set(backends) - {SPARSE, DENSE}):
        raise RecipeError(f"--plot compares {SPARSE} with dense engines: add --backend {SPARSE} and --backend eager.")
    try:
        import matplotlib  # noqa: F401
    except ImportError as cause:
        raise PruneKitError('--plot needs matplotlib: pip install "prunekit[report]".') from cause


def draw_speedup(found: Bench, file: Path) -> None:
    """Draw a panel for each shape and number of threads: speed-up over the best dense engine, and over eager.

    Args:
        found: several densities make a curve of it.
        file: .png or .svg.

    Raises:
        Failed: nothing was measured that could be compared.
    """
    from matplotlib import style
    from matplotlib.figure import Figure  # without pyplot: no window system, nothing global

    settings = [setting for setting in found.by_setting() if curve(found, setting, found.best_dense(setting))]
    if not settings:
        raise Failed(f"{file} was not drawn: no panel has both {SPARSE} and a dense engine measured.")
    with style.context(["default", STYLE, {"svg.hashsalt": "prunekit"}]):
        figure = Figure()
        columns = 2 if len(settings) == 4 else min(3, len(settings))
        lines = math.ceil(len(settings) / columns)
        figure.set_size_inches(max(5.0, 3.6 * columns), 0.8 + 3.2 * lines)
        grid = figure.subplots(lines, columns, squeeze=False).flatten()
        for axes in grid[len(settings) :]:
            axes.set_visible(False)
        for axes, setting in zip(grid, settings, strict=False):
            _panel(axes, found, setting)
        for axes in grid[::columns]:
            axes.set_ylabel("speed-up (times faster)")
        figure.supxlabel("prunable weights kept", fontsize=9)
        handles = {label: line for axes in grid for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=min(4, columns + 1))
        kind = file.suffix
        write_atomic(file, partial(figure.savefig, format=kind[1:], metadata=METADATA[kind]))


def _panel(axes: Any, found: Bench, setting: Setting) -> None:
    best = found.best_dense(setting)
    assert best is not None  # settings without were left out
    points = curve(found, setting, best)
    over_eager = curve(found, setting, found.eager(setting))
    axes.axhline(1, color=INK, lw=1)
    axes.plot(*zip(*points, strict=True), color=BLUE, marker="o", ms=4.5, lw=1.8, label="over the best dense engine")
    if over_eager and best.case.backend != REFERENCE:
        axes.plot(*zip(*over_eager, strict=True), color=RED, ls="--", marker="s", ms=3.5, lw=1.3, label="over eager")
    if points[0][0] == 1:
        axes.plot(*points[0], color=BLUE, marker="o", ms=6, mfc="white", mew=1.5, ls="", label="nothing cut")
    name, ms = best.case.backend, best.quartiles_ms[1]
    axes.set_title(f"{setting_text(setting)}\nbest dense engine: {name}, {ms:,.3g} ms\n{_verdict(points)}", loc="left")
    _density_axis(axes, [density for density, _ in points])
    axes.set_ylim(0, 1.15 * max(1.0, *(speedup for _, speedup in (*points, *over_eager))))
    even = break_even(points)
    if even and even < math.inf:
        axes.plot([even, even], [0, 1], color=INK, ls=":", lw=1.3)
        axes.plot(even, 1, color=INK, marker="D", ms=6, mfc="white", mew=1.4, ls="", zorder=5, label="break-even")


def _density_axis(axes: Any, densities: Sequence[float]) -> None:
    """Let density fall to the right, with a tick at what was measured as far as there is room."""
    high, low = densities[0] * 1.15, densities[-1] / 1.15
    axes.set_xscale("log")
    axes.minorticks_off()
    ends_first = [densities[0], densities[-1], *densities]
    ticks = [math.exp(place) for place in apart([math.log(each) for each in ends_first], math.log(high / low) / 8)]
    axes.set_xticks(ticks, [f"{100 * tick:.3g} %" for tick in ticks])
    axes.set_xlim(high, low)


def _verdict(points: Sequence[Point]) -> str:
    even = break_even(points)
    if not even:
        return f"no break-even: slower even at {100 * points[-1][0]:.3g} % kept"
    if even == math.inf:
        return f"faster wherever measured, up to {100 * points[0][0]:.3g} % kept"
    return f"break-even at {100 * even:.3g} % kept"
