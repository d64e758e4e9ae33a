"""Pictures of a run: quality against density, sparsity per tensor, samples, training curves (matplotlib)."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prunekit.errors import PruneKitError
from prunekit.files import write_atomic
from prunekit.report.results import StageResult, damaged, read_plan, read_samples
from prunekit.report.table import against, dense, digits, labels, metrics

INK, BLUE, RED = "#222222", "#0072B2", "#D55E00"  # Okabe and Ito's, apart for all eyes
STYLE = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 130,
    "figure.constrained_layout.use": True,
}
CAPTIONS = {
    "quality.png": "Quality against density (share of all parameters that is left, falling to the right). Bars: 1.96 "
    "standard errors of the differences to the dense network, item by item; they say how sure the distance to the "
    "dashed line is, with few items only roughly.",
    "sparsity.png": "What the last finished stage keeps of each prunable tensor, in model order; the larger the dot, "
    "the larger the tensor. Crosses: nothing is left. Where a cut leaves a smaller network, a layer that keeps half of "
    "its inputs and half of its outputs keeps a quarter of its weights.",
    "samples.png": "The first item of each task; numbers are of the whole item, as evaluated, not of the crop shown.",
    "loss.png": "Training loss of each stage: running mean over a fiftieth of the logged steps.",
}


def draw(run: Path, results: Sequence[StageResult], folder: Path) -> list[Path]:
    """Draw every picture that the run has data for into ``folder``; return the files.

    Raises:
        PruneKitError: matplotlib is missing.
        RunError: a file of the run is damaged.
    """
    try:
        from matplotlib import style
        from matplotlib.figure import Figure  # without pyplot: no window system, nothing global
    except ImportError as cause:
        raise PruneKitError('pictures need matplotlib: pip install "prunekit[report]".') from cause
    drawings: dict[str, Callable[[Any], Any]] = {
        "quality.png": lambda figure: _quality(figure, results),
        "sparsity.png": lambda figure: _sparsity(figure, results[-1]),
        "samples.png": lambda figure: _samples(figure, results),
        "loss.png": lambda figure: _loss(figure, run),
    }
    files = []
    with style.context(["default", STYLE]):
        for name, drawing in drawings.items():
            figure = Figure()
            if drawing(figure):
                save = partial(figure.savefig, format="png", metadata={"Software": None})
                write_atomic(folder / name, save)
                files.append(folder / name)
    return files


def _quality(figure: Any, results: Sequence[StageResult]) -> bool:
    metric = next(iter(metrics(results)), None)
    if metric is None:
        return False
    named, reference = labels(results, metric), dense(results)
    columns = min(3, len(named))
    figure.set_size_inches(max(4.6, 3.3 * columns), 0.4 + 2.7 * math.ceil(len(named) / columns))
    grid = figure.subplots(math.ceil(len(named) / columns), columns, squeeze=False).flatten()
    for axes in grid[len(named) :]:
        axes.set_visible(False)
    x = [result.density_of_all for result in results]
    for axes, (group, label) in zip(grid, named.items(), strict=False):
        means = [next((m for m in r.means(metric) if (m.task, m.dataset) == group), None) for r in results]
        half = [against(result, reference, metric).get(group, (0.0, math.nan))[1] for result in results]
        y = [math.nan if mean is None else mean.value for mean in means]
        first = next(mean for mean in means if mean)
        if reference is not None:
            axes.axhline(y[results.index(reference)], color=INK, dashes=(5, 3), lw=1, label="dense")
        if first.baseline is not None:
            axes.axhline(first.baseline, color=RED, ls=":", lw=1.6, label="input")
        axes.errorbar(
            x, y, half, color=BLUE, marker="o", ms=4, lw=1.5, elinewidth=1, capsize=2, label="stages of this run"
        )
        axes.set(title=f"{label} (n = {first.n})", xscale="log")
        axes.minorticks_off()
        ticks = np.exp(apart(np.log([max(x), min(x), *x]).tolist(), math.log(max(x) / min(x)) / 4.5))
        axes.set_xticks(ticks, [f"{100 * tick:.3g} %" for tick in ticks])
        axes.set_xlim(max(x) * 1.12, min(x) / 1.12)
        axes.margins(y=0.12)
    for axes in grid[::columns]:
        axes.set_ylabel(metric)
    figure.supxlabel("parameters left, of all", fontsize=9)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return True


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Return the places whose labels find room; earlier ones come first."""
    chosen: list[float] = []
    for place in places:
        if all(abs(place - other) > gap for other in chosen):
            chosen.append(place)
    return chosen


def _log_ticks(axes: Any, text: Callable[[float], str]) -> None:
    """Put the ticks of a logarithmic y axis at 1, 2 and 5, or at powers of ten where those are many."""
    low, high = axes.get_ylim()
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in ((1, 2, 5) if len(powers) < 5 else (1,))]
    ticks = [tick for tick in ticks if low < tick < high]
    axes.minorticks_off()
    axes.set_yticks(ticks, [text(tick) for tick in ticks])


def _sparsity(figure: Any, result: StageResult) -> bool:
    tensors = result.per_tensor
    if not tensors:
        return False
    figure.set_size_inches(10, 4.4)
    axes = figure.subplots()
    kept, sizes = np.array([counts for _, *counts in tensors]).T
    density, area = kept / sizes, 6 + 90 * np.sqrt(sizes / sizes.max())
    floor = min(0.5, density[density > 0].min(initial=1) / 2)
    empty = np.flatnonzero(density == 0)
    full = np.flatnonzero(density)
    runs = [(key, len(list(group))) for key, group in itertools.groupby(name.split(".")[0] for name, *_ in tensors)]
    ends = list(itertools.accumulate(length for _, length in runs))
    for index, (end, (_, length)) in enumerate(zip(ends, runs, strict=True)):
        axes.axvspan(end - length - 0.5, end - 0.5, color="#F4F4F4" if index % 2 else "white", lw=0, zorder=0)
    axes.axhline(result.density, color=INK, dashes=(5, 3), lw=1, label=f"all prunable: {100 * result.density:.3g} %")
    axes.scatter(full, density[full], area[full], color=BLUE, alpha=0.65, lw=0)
    if len(empty):
        marks = axes.scatter(
            empty, [floor] * len(empty), 40, color=RED, marker="x", lw=1.8, label=f"emptied: {len(empty)}"
        )
        marks.set_clip_on(False)
    axes.set(xlim=(-0.5, len(tensors) - 0.5), yscale="log", ylim=(floor, 1.15), ylabel="kept of each tensor")
    _log_ticks(axes, lambda tick: f"{100 * tick:.3g} %" if tick <= 1 else "")
    axes.grid(visible=False, axis="x")
    centres = {end - (length + 1) / 2: key for end, (key, length) in zip(ends, runs, strict=True)}
    largest_first = [centre for _, centre in sorted(zip((-length for _, length in runs), centres, strict=True))]
    shown = apart(largest_first, len(tensors) / 65)
    axes.set_xticks(shown, [centres[centre] for centre in shown], rotation=90, fontsize=7.5)
    axes.set_title(f"{result.name}: {len(tensors)} prunable tensors, in model order", loc="left")
    figure.legend(loc="outside upper right", ncols=2)
    return True


def _samples(figure: Any, results: Sequence[StageResult]) -> bool:
    first, last = results[0], results[-1]
    before, after = read_samples(first), read_samples(last)
    tasks = [task for task in after if task in before]
    if not tasks:
        return False
    ends = [("dense" if first.density == 1 else first.name, first, before)]
    cut = "smaller" if last.structured else "ticket"
    ends += [(f"{cut}, {100 * last.density_of_all:.3g} %", last, after)] if last is not first else []
    targets = any("target" in after[task][1] for task in tasks)
    width = 1 + len(ends) + targets
    figure.set_size_inches(2.5 * width, 2.75 * len(tasks))
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0, hspace=0)
    grid = figure.subplots(len(tasks), width, squeeze=False)
    metric = next(iter(metrics(results)), "")
    for row, task in zip(grid, tasks, strict=True):
        item, images = after[task]
        of_item = [
            [m for m in stage.measures if (m.task, m.item, m.metric) == (task, item, metric)] for _, stage, _ in ends
        ]
        values = [found[0].value if found else None for found in of_item]
        values.insert(0, of_item[0][0].baseline if of_item[0] else None)
        pictures = [images.get("input"), *(held[task][1].get("output") for _, _, held in ends)]
        titles = ["input", *(title for title, *_ in ends)]
        for axes in row:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        for axes, title, value, picture in zip(row, titles, values, pictures, strict=False):
            number = "" if value is None else f": {value:.{digits(values)}f} {metric}"
            _show(axes, title + number, picture)
        if targets:
            _show(row[-1], "target", images.get("target"))
        row[0].set_ylabel(task, fontsize=10)
    return True


def _show(axes: Any, title: str, picture: Any) -> None:
    axes.set_title(title, pad=3)
    if picture is not None:
        axes.imshow(picture.numpy(), interpolation="nearest")


def _loss(figure: Any, run: Path) -> bool:
    from matplotlib import colormaps

    curves = losses(run)
    if not curves:
        return False
    figure.set_size_inches(8, 4)
    axes = figure.subplots()
    for index, (name, curve) in enumerate(curves.items()):
        shade = colormaps["viridis"](0.88 * index / max(1, len(curves) - 1))
        axes.plot(curve[:, 0], curve[:, 1], color=shade, lw=1.3, label=name)
    axes.set(xlabel="optimiser step", ylabel="loss")
    if all((curve[:, 1] > 0).all() for curve in curves.values()):
        axes.set_yscale("log")
        _log_ticks(axes, lambda tick: f"{tick:g}")
    figure.legend(loc="outside right upper", fontsize=8, title="stage")
    return True


def losses(run: Path) -> dict[str, Any]:
    """Return stage -> (step, loss) rows: the running mean over a fiftieth of the logged steps; errors as `draw`'s."""
    curves = {name: _log(run / name / "log.jsonl") for name in read_plan(run)}
    means = {}
    for name, curve in curves.items():
        width = max(1, len(curve) // 50)
        if len(curve):
            means[name] = np.apply_along_axis(np.convolve, 0, curve, np.full(width, 1 / width), "valid")
    return means


def _log(path: Path) -> Any:
    """Return the logged (step, loss) pairs; a last line that is just being written is left out."""
    if not path.exists():
        return np.empty((0, 2))
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    try:
        pairs = [json.loads(line) for line in lines if line.endswith("\n")]
        return np.array([(pair["clock"], pair["loss"]) for pair in pairs], dtype=float).reshape(-1, 2)
    except (ValueError, KeyError, TypeError) as cause:
        raise damaged(path) from cause
