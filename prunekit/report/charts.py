"""Plots that answer, for the HTML page: hover, zoom, a legend that switches curves on and off (Bokeh)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from prunekit.errors import PruneKitError
from prunekit.report.plots import apart
from prunekit.report.results import StageResult

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")  # Okabe and Ito's
DASHES = ("solid", "dashed", "dotted")
MARKERS = ("circle", "triangle", "square", "diamond", "inverted_triangle", "plus", "x")
MOST_POINTS = 500  # of a curve: more than a screen tells apart
GREY = "#808080"  # seen on white and on black
NEEDED = 'the HTML page needs bokeh and pillow: pip install "prunekit[report]".'


@final
@dataclass(frozen=True)
class Curve:
    """Points with names and intervals.

    Args:
        name: for the legend.
        x: shares of all parameters that are left, in (0, 1].
        y: the metric.
        half: half of each point's interval; nan where there is none.
        labels: what each point is.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    half: Sequence[float]
    labels: Sequence[str]


@final
@dataclass(frozen=True)
class Key:
    """A line of a legend; ``name`` is that of what it switches on and off in the figure."""

    name: str
    colour: str
    dash: str
    shown: bool = True


@final
@dataclass(frozen=True)
class Plot:
    """A Bokeh figure and its legend, which stands beside it in the page, for the keyboard's sake."""

    figure: Any
    keys: Sequence[Key]


def against_density(title: str, curves: Sequence[Curve], lines: Mapping[str, float], unit: str) -> Plot:
    """Return a plot of a metric against density, falling to the right.

    Args:
        title: over it.
        curves: at least one point among them.
        lines: name -> height of a level line, such as the dense network's.
        unit: of the metric, for the axis.
    """
    places = [x for curve in curves for x in curve.x]
    ends = (max(places) * 1.12, min(places) / 1.12)
    figure = _figure(title, x_axis_type="log", x_range=ends, height=280)
    for number, (name, height) in enumerate(lines.items()):
        figure.line(ends, [height] * 2, color=GREY, line_dash=DASHES[1 + number % 2], line_width=2, name=name)
    for number, curve in enumerate(curves):
        _points(figure, curve, number)
    ticks = np.exp(apart(np.log([max(places), min(places), *places]).tolist(), math.log(ends[0] / ends[1]) / 4))
    figure.xaxis.ticker = sorted(ticks.tolist())
    figure.xaxis.major_label_overrides = {float(tick): f"{100 * tick:.3g} %" for tick in ticks}
    figure.xaxis.axis_label, figure.yaxis.axis_label = "parameters left, of all", unit
    keys = [Key(name, GREY, DASHES[1 + number % 2]) for number, name in enumerate(lines)]
    return Plot(figure, [*keys, *(Key(curve.name, *_look(number)) for number, curve in enumerate(curves))])


def _look(number: int) -> tuple[str, str]:
    """Return the colour and the dashes of the n-th curve."""
    return COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]


def _points(figure: Any, curve: Curve, number: int) -> None:
    """Draw one curve with its intervals."""
    from bokeh.models import ColumnDataSource, HoverTool

    half = [0.0 if math.isnan(each) else each for each in curve.half]
    low, high = ([y + sign * h for y, h in zip(curve.y, half, strict=True)] for sign in (-1, 1))
    interval = ["" if math.isnan(each) else f" ± {each:.3g}" for each in curve.half]
    source = ColumnDataSource(
        {"x": curve.x, "y": curve.y, "low": low, "high": high, "label": curve.labels, "interval": interval}
    )
    colour, dash = _look(number)
    look = {"color": colour, "name": curve.name}
    figure.segment("x", "low", "x", "high", source=source, line_width=1.5, **look)
    figure.line("x", "y", source=source, line_width=2, line_dash=dash, **look)
    shown = figure.scatter("x", "y", source=source, size=8, marker=MARKERS[number % len(MARKERS)], **look)
    tips = [(curve.name, "@label"), ("left of all", "@x{0.00 %}"), ("value", "@y{0.0000}@interval")]
    figure.add_tools(HoverTool(renderers=[shown], tooltips=tips))


def per_tensor(stages: Mapping[str, StageResult]) -> Plot:
    """Return a plot of what each stage keeps of each prunable tensor; the last stage is shown, others on request."""
    from bokeh.models import HoverTool

    count = max(len(result.per_tensor) for result in stages.values())
    figure = _figure("kept of each tensor, in model order", y_axis_type="log", x_range=(-1, count), height=340)
    floor = _floor(stages.values())
    shown = []
    for number, (label, result) in enumerate(stages.items()):
        names = [name for name, _, _ in result.per_tensor]
        kept, sizes = np.array([counts for _, *counts in result.per_tensor]).reshape(-1, 2).T
        share = kept / np.maximum(sizes, 1)
        columns = {"x": list(range(len(names))), "y": [float(max(each, floor)) for each in share]}
        columns |= {"name": names, "share": [f"{100 * each:.2f} %" for each in share]}
        columns |= {"counts": [f"{k:,} of {n:,}" for k, n in zip(kept, sizes, strict=True)]}
        columns |= {"marker": ["circle" if each else "x" for each in kept]}
        columns |= {"size": [4 + 10 * math.sqrt(n / max(sizes)) if k else 11 for k, n in zip(kept, sizes, strict=True)]}
        look = {"color": _look(number)[0], "fill_alpha": 0.6, "line_width": 1.5}
        drawn = figure.scatter("x", "y", source=columns, marker="marker", size="size", name=label, **look)
        drawn.visible = number == len(stages) - 1
        shown.append(drawn)
    figure.add_tools(HoverTool(renderers=shown, tooltips=[("", "@name"), ("kept", "@share (@counts)")]))
    figure.xaxis.axis_label, figure.yaxis.axis_label = "tensor", "kept"
    figure.yaxis.major_label_overrides = {10.0**-power: f"{100 / 10**power:g} %" for power in range(9)}
    keys = [
        Key(label, _look(n)[0], "solid", drawn.visible)
        for n, (label, drawn) in enumerate(zip(stages, shown, strict=True))
    ]
    return Plot(figure, keys)


def _floor(stages: Iterable[StageResult]) -> float:
    """Return where tensors of which nothing is left are drawn: below all others."""
    shares = [kept / size for result in stages for _, kept, size in result.per_tensor if kept]
    return min(0.5, min(shares, default=1.0) / 2)


def training(losses: Mapping[str, NDArray[np.float64]]) -> Plot:
    """Return a plot of (step, loss) curves."""
    from bokeh.models import HoverTool

    positive = all((curve[:, 1] > 0).all() for curve in losses.values())
    figure = _figure("training loss", y_axis_type="log" if positive else "linear", height=340)
    for number, (label, curve) in enumerate(losses.items()):
        places = np.linspace(0, len(curve) - 1, min(len(curve), MOST_POINTS)).astype(int)
        x, y = ([float(f"{each:.5g}") for each in column] for column in curve[places].T)
        colour, dash = _look(number)
        drawn = figure.line(x, y, color=colour, line_width=1.6, line_dash=dash, name=label)
        figure.add_tools(HoverTool(renderers=[drawn], tooltips=[(label, "step @x"), ("loss", "@y{0.00000}")]))
    figure.xaxis.axis_label, figure.yaxis.axis_label = "optimiser step", "loss"
    return Plot(figure, [Key(label, *_look(number)) for number, label in enumerate(losses)])


def _figure(title: str, **options: Any) -> Any:
    try:
        from bokeh.plotting import figure
    except ImportError as cause:
        raise PruneKitError(NEEDED) from cause
    made = figure(title=title, sizing_mode="stretch_width", tools="box_zoom,pan,reset,save", **options)
    made.background_fill_color = made.border_fill_color = made.outline_line_color = None
    made.output_backend = "svg"  # sharp in print
    made.toolbar.logo, made.toolbar.autohide = None, True
    made.axis.axis_label_text_font_style = "normal"
    return made


def to_json(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return what BokehJS needs to draw each figure into the element of its name; the same figures give the same."""
    from bokeh.core.serialization import Serialized
    from bokeh.document import Document

    document = Document()
    for figure in figures.values():
        document.add_root(figure)
    numbers = {model.id: f"m{number}" for number, model in enumerate(_in_order([*figures.values(), document.config]))}
    held = document.to_json(deferred=False)
    assert not isinstance(held, Serialized)
    roots = {numbers[figure.id]: name for name, figure in figures.items()}
    items = [{"docid": "page", "roots": roots, "root_ids": list(roots)}]
    return {"documents": {"page": _renamed(held, numbers)}, "items": items}


def _in_order(roots: Iterable[Any]) -> list[Any]:
    """Return every model below some, in the order in which they were made: ids count up."""
    found = {model.id: model for root in roots for model in root.references()}
    return sorted(found.values(), key=lambda model: int(model.id.lstrip("p")))


def _renamed(value: Any, numbers: Mapping[str, str]) -> Any:
    """Return a tree with other ids: Bokeh's count what was drawn before in this process."""
    if isinstance(value, dict):
        return {key: numbers.get(item, item) if key == "id" else _renamed(item, numbers) for key, item in value.items()}
    return [_renamed(item, numbers) for item in value] if isinstance(value, list) else value


def library() -> str:
    """Return BokehJS, about 1.3 MB, with its licence on top."""
    try:
        from bokeh.resources import Resources
    except ImportError as cause:
        raise PruneKitError(NEEDED) from cause
    text: str = Resources(mode="inline", components=["bokeh"]).js_raw[0]
    return text
