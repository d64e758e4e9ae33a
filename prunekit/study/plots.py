"""The pictures of a study's report (matplotlib)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prunekit.errors import PruneKitError
from prunekit.files import write_atomic
from prunekit.report.plots import BLUE, INK, RED, STYLE, apart
from prunekit.report.table import Group
from prunekit.study.overlap import Overlap
from prunekit.study.results import Gap

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
MARKERS = "o^svDPX"


def refuse_bare() -> None:
    """Raise PruneKitError where a report would lack what it is made with: before days of training, not after.

    Raises:
        PruneKitError: matplotlib or scipy is missing.
    """
    missing = [name for name in ("matplotlib", "scipy") if find_spec(name) is None]
    if missing:
        raise PruneKitError(f'a study\'s report needs {" and ".join(missing)}: pip install "prunekit[report]".')


def draw(path: Path, drawing: Callable[[Any], None]) -> Path:
    """Let ``drawing`` fill a figure and write it as PNG.

    Raises:
        PruneKitError: matplotlib is missing.
    """
    try:
        from matplotlib import style
        from matplotlib.figure import Figure  # without pyplot: no window system, nothing global
    except ImportError as cause:
        raise PruneKitError('pictures need matplotlib: pip install "prunekit[report]".') from cause
    with style.context(["default", STYLE]):
        figure = Figure()
        drawing(figure)
        write_atomic(path, partial(figure.savefig, format="png", metadata={"Software": None}))
    return path


def quality(figure: Any, gaps: Sequence[Gap], named: Mapping[Group, str], metric: str) -> None:
    """Draw each arm's difference to the dense network against density, one panel a task."""
    panels = _panels(figure, len(named))
    for axes, (group, label) in zip(panels, named.items(), strict=True):
        here = [gap for gap in gaps if gap.group == group]
        axes.axhline(0, color=INK, dashes=(5, 3), lw=1, label="dense")
        arms = list(dict.fromkeys(gap.arm for gap in gaps))
        for number, arm in enumerate(arms):  # each a little aside, so that they do not hide each other
            aside = 0.006 * (number - (len(arms) - 1) / 2)
            _line(axes, [gap for gap in here if gap.arm == arm], number, arm, aside=aside)
        axes.set(title=label, xscale="log", xlabel="parameters left, of all")
        _percents(axes, [gap.density for gap in here])
    panels[0].set_ylabel(f"{metric}, less dense")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)


def interference(
    figure: Any, found: Sequence[Sequence[Gap]], named: Mapping[Group, str], metric: str, higher: bool
) -> None:
    """Draw what the other tasks cost or give each task, against density."""
    panels = _panels(figure, len(named))
    for axes, (group, label) in zip(panels, named.items(), strict=True):
        line = [gap for gaps in found for gap in gaps if gap.group == group]
        axes.axhline(0, color=INK, dashes=(5, 3), lw=1)
        _line(axes, line, 0, "all tasks", higher=higher)
        axes.set(title=label, xscale="log", xlabel="parameters left, of all")
        _percents(axes, [gap.density for gap in line])
    panels[0].set_ylabel(f"{metric}, above 0 better")
    figure.suptitle("The network of all tasks less that of one: above 0 the other tasks help", fontsize=10)


def overlap(figure: Any, found: Sequence[Overlap]) -> None:
    """Draw what each pair of tickets has in common, tensor by tensor, beside chance; larger where more is kept."""
    panels = _panels(figure, len(found))
    for axes, pair in zip(panels, found, strict=True):
        held = [layer.first + layer.second for layer in pair.layers().values()]
        shown = [(n, layer) for n, layer in enumerate(pair.layers().values(), 1) if layer.first + layer.second]
        places = [number for number, _ in shown]
        axes.scatter(places, [100 * layer.chance for _, layer in shown], 30, color=RED, marker="_", label="by chance")
        shares = [100 * layer.of_either for _, layer in shown]
        area = [5 + 70 * math.sqrt(held[number - 1] / max(held)) for number in places]
        axes.scatter(places, shares, area, color=BLUE, alpha=0.6, lw=0, label="in common")
        axes.set(title=f"{pair.first}, {pair.second}", ylim=(-3, 103), xlabel="prunable tensor, in model order")
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[0].set_ylabel("kept by both, % of either")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)


def _panels(figure: Any, count: int) -> list[Any]:
    columns = min(3, count)
    rows = math.ceil(count / columns)
    figure.set_size_inches(max(6.0, 3.4 * columns + 0.4), 0.8 + 2.7 * rows)
    grid = list(figure.subplots(rows, columns, squeeze=False).flatten())
    for axes in grid[count:]:
        axes.set_visible(False)
    return grid[:count]


def _line(axes: Any, gaps: Sequence[Gap], number: int, label: str, *, higher: bool = True, aside: float = 0.0) -> None:
    """Draw one line with its intervals; ``aside`` moves it by so much of each density."""
    x = [gap.density * (1 + aside) for gap in gaps]
    found = [gap.difference.oriented(higher) for gap in gaps]
    half = [each.half if math.isfinite(each.half) else math.nan for each in found]
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    y = [each.mean for each in found]
    axes.errorbar(x, y, half, color=colour, marker=marker, ms=4, lw=1.2, capsize=2, label=label)


def _percents(axes: Any, densities: Sequence[float]) -> None:
    """Label a logarithmic axis of densities, falling to the right, with those that were measured."""
    axes.minorticks_off()
    if not densities:
        return
    low, high = min(densities), max(densities)
    gap = max(math.log(high / low), 0.1) / 4.5
    ticks = [math.exp(place) for place in apart([math.log(each) for each in (low, high, *densities)], gap)]
    axes.set_xticks(ticks, [f"{100 * tick:.3g} %" for tick in ticks])
    axes.set_xlim(high * 1.12, low / 1.12)
