"""``prunekit bench``: what a network costs, in tables, as CSV and as a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from prunekit.bench import Bench, Row, bench, break_even, curve, parse_shape
from prunekit.bench.plot import check_plot, draw_speedup
from prunekit.bench.result import DENSE, SPARSE, Setting, setting_text
from prunekit.bench.sheet import bench_csv
from prunekit.errors import Failed
from prunekit.files import refuse_existing, write_text
from prunekit.report.table import si


def show_bench(
    source: str,
    *,
    stage: str | None,
    network: str | None,
    shapes: Sequence[str],
    backends: Sequence[str],
    threads: Sequence[int],
    densities: Sequence[float],
    runs: int,
    file: Path | None,
    plot: Path | None,
) -> None:
    """Measure, print, write the CSV and draw; both files are checked first, since measuring takes minutes."""
    for path in (file, plot):
        if path is not None:
            refuse_existing(path)
    if plot is not None:
        check_plot(plot, backends)
    parsed = [parse_shape(text) for text in shapes]
    with telling() as progress:
        found = bench(
            source,
            stage=stage,
            network=network,
            shapes=parsed,
            backends=backends,
            threads=threads,
            densities=densities,
            runs=runs,
            progress=progress,
        )
    console = Console(soft_wrap=True, markup=False, highlight=False)
    _print(found, console)
    if not any(row.times_ms for row in found.rows):
        raise Failed("nothing could be measured; the reasons stand above.")
    if file is not None:
        write_text(file, bench_csv(found))
        console.print(f"{file}: every column")
    if plot is not None:
        draw_speedup(found, plot)
        console.print(f"{plot}: speed-up against density")


def _print(found: Bench, console: Console) -> None:
    if not found.trained:
        console.print(f"{found.source}: fresh weights (seed 0), not trained, nothing cut but as said below")
    for line in head(found):
        console.print(line)
    console.print(networks(found))
    for setting in found.by_setting():
        console.print()
        console.print(title(found, setting))
        console.print(rows(found, setting))
        for line in verdict(found, setting):
            console.print(line)
    console.print()
    for line in tail(found):
        console.print(line)


@contextmanager
def telling() -> Iterator[Callable[[str], None]]:
    """Say on stderr what is going on: in one changing line on a terminal, else a line each."""
    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    if not console.is_terminal:
        yield console.print
        return
    # No spinner: what redraws by itself takes time from what is measured.
    with Live(console=console, auto_refresh=False, transient=True) as line:
        yield lambda text: line.update(Text(text), refresh=True)


def head(found: Bench) -> Iterator[str]:
    """Yield the lines about the machine and the network."""
    size = next(iter(found.sizes.values()))
    engines = ", ".join(f"{name} {version}" for name, version in found.machine.versions.items())
    yield f"{found.machine.cpu}; {engines}"
    yield (
        f"{found.source}: {size.parameters:,} parameters, {size.prunable:,} of them prunable; "
        f"{si(size.bytes_dense, 'B')} as a dense float32 file"
    )
    if found.before:
        left = size.parameters / found.before.parameters
        yield (
            f"before channels were removed: {found.before.parameters:,} parameters, of which {left:.2%} are left; "
            f"{si(found.before.bytes, 'B')} of tensors"
        )


def networks(found: Bench) -> Table:
    """Return what is left at each density."""
    table = Table(box=None, pad_edge=False)
    for name in ("kept of prunable", "of all parameters", "sparse file"):
        table.add_column(name, justify="right")
    shown = {row.case.density for row in found.rows if row.case.backend != DENSE}  # that one is nobody's network
    for size in (size for density, size in found.sizes.items() if density in shown):
        of_all = f"{size.kept_of_all:,} ({size.kept_of_all / size.parameters:.2%})"
        table.add_row(f"{size.kept:,} ({size.density:.2%})", of_all, si(size.bytes_sparse, "B"))
    return table


def title(found: Bench, setting: Setting) -> str:
    """Return the line above a table."""
    dense = next(macs.dense for (shape, _), macs in found.macs.items() if shape == setting[0])
    text = f"input {setting_text(setting)}: {si(dense, 'MAC')} with every weight"
    if not found.before:
        return text
    whole = found.before.macs[setting[0]]
    return f"{text}, {dense / whole:.2%} of {si(whole, 'MAC')} before channels were removed"


def rows(found: Bench, setting: Setting) -> Table:
    """Return the rows of one setting as a table that fits 80 columns."""
    table = Table(box=None, pad_edge=False)
    table.add_column("backend")
    for name in (
        "MAC\nleft",
        "median\nms",
        "25 % .. 75 %\nms",
        "speed-up\nover eager",
        "peak\nMiB",
        "differs\nby at most",
    ):
        table.add_column(name, justify="right")
    for row in found.by_setting()[setting]:
        cells = _cells(found, row) if row.times_ms else ("failed", "", "", "", "")
        macs = found.macs[row.case.shape, row.case.density]
        table.add_row(_label(found, row), si(macs.kept if _skips(row) else macs.dense), *cells)
    return table


def verdict(found: Bench, setting: Setting) -> Iterator[str]:
    """Yield from which density on zeros are worth their while."""
    best = found.best_dense(setting)
    points = curve(found, setting, best)
    even = break_even(points)
    if best is None or even is None:
        return
    rival = f"the best dense engine here ({best.case.backend}, {_ms(best.quartiles_ms[1])} ms)"
    if even == 0:
        yield f"prunekit does not break even with {rival}: slower even at {_percent(points[-1][0])} kept"
    elif even == math.inf:
        yield f"prunekit is faster than {rival} wherever measured, up to {_percent(points[0][0])} kept"
    else:
        yield f"prunekit breaks even with {rival} at about {_percent(even)} kept"


def tail(found: Bench) -> Iterator[str]:
    """Yield what must be known to read the tables."""
    for row in found.rows:
        if row.failure:
            yield f"{row.case} failed: {row.failure}"
    if found.missing:
        yield f"not installed: {', '.join(found.missing)}"
    passes = max((len(row.times_ms) for row in found.rows), default=0)
    each = f"{passes} pass{'es' * (passes > 1)} each, in turn within a table."
    yield f"{each} MAC left: multiply-adds that remain to be done."
    yield "Only prunekit leaves out zeros; to the others they are weights like any: their rows hold for every density."
    if any(row.case.backend == DENSE for row in found.rows):
        yield "prunekit-dense: the same runtime without a zero to leave out (what was cut is small seeded noise there)."
    yield "MiB: of the whole process, libraries included, during a pass."
    yield "Differs: absolute, from eager's output with the same weights."


def _label(found: Bench, row: Row) -> str:
    """Name a row; where the backend makes use of zeros, with what is kept."""
    if row.case.backend != SPARSE:
        return row.case.backend
    return f"{SPARSE} {_percent(found.sizes[row.case.density].density)}"


def _skips(row: Row) -> bool:
    return row.case.backend in (SPARSE, DENSE)


def _cells(found: Bench, row: Row) -> tuple[str, ...]:
    low, median, high = row.quartiles_ms
    speedup = row.faster_than(found.eager(row.case.setting))
    return (
        _ms(median),
        f"{_ms(low)} .. {_ms(high)}",
        "-" if speedup is None else f"{speedup:.2f}x",
        "-" if row.peak_mib is None else f"{row.peak_mib:,.0f}",
        "-" if row.difference is None else f"{row.difference:.1e}" if row.difference else "0",
    )


def _ms(value: float) -> str:
    return f"{value:,.{0 if value >= 1000 else 1 if value >= 10 else 3}f}"


def _percent(density: float) -> str:
    return f"{100 * density:.3g} %"
