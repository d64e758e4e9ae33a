"""``prunekit bench``: what a network costs, in tables and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from prunekit.bench import Bench, Row, bench, parse_shape
from prunekit.bench.result import Shape, shape_text
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
    runs: int,
    threads: int | None,
    file: Path | None,
) -> None:
    """Measure, print, and write the CSV; ``file`` is checked first, since measuring takes minutes."""
    if file is not None:
        refuse_existing(file)
    parsed = [parse_shape(text) for text in shapes]
    with telling() as progress:
        found = bench(
            source,
            stage=stage,
            network=network,
            shapes=parsed,
            backends=backends,
            runs=runs,
            threads=threads,
            progress=progress,
        )
    console = Console(soft_wrap=True, markup=False, highlight=False)
    if not found.trained:
        console.print(f"{source}: fresh weights (seed 0), not trained, nothing cut")
    for line in head(found):
        console.print(line)
    for shape in found.macs:
        console.print()
        console.print(title(found, shape))
        console.print(rows(found, shape))
    console.print()
    for line in tail(found):
        console.print(line)
    if not any(row.times_ms for row in found.rows):
        raise Failed("nothing could be measured; the reasons stand above.")
    if file is not None:
        write_text(file, bench_csv(found))
        console.print(f"{file}: every column")


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
    """Yield the lines about the network and the machine."""
    size, machine = found.size, found.machine
    of_all = _share(size.kept_of_all, size.parameters)
    yield f"{found.source}: kept {_share(size.kept, size.prunable)} prunable, {of_all} of all parameters"
    yield f"on disk: {si(size.bytes_dense, 'B')} dense float32, {si(size.bytes_sparse, 'B')} as a sparse file"
    engines = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    yield f"{machine.cpu}, {machine.threads} thread{'s' * (machine.threads > 1)}; {engines}"


def title(found: Bench, shape: Shape) -> str:
    """Return the line above a shape's table."""
    macs = found.macs[shape]
    return f"input {shape_text(shape)}: {si(macs.dense, 'MAC')} dense, {si(macs.kept, 'MAC')} with a kept weight"


def rows(found: Bench, shape: Shape) -> Table:
    """Return the backends at one shape as a table that fits 80 columns."""
    table = Table(box=None, pad_edge=False)
    table.add_column("backend")
    for name in ("median\nms", "25 % .. 75 %\nms", "speed-up\nover eager", "peak\nMiB", "differs\nby at most"):
        table.add_column(name, justify="right")
    for row in found.rows:
        if row.shape == shape:
            table.add_row(row.backend, *(_cells(found, row) if row.times_ms else ("failed", "", "", "", "")))
    return table


def tail(found: Bench) -> Iterator[str]:
    """Yield what must be known to read the tables."""
    for row in found.rows:
        if row.failure:
            yield f"{row.backend} at {shape_text(row.shape)} failed: {row.failure}"
    if found.missing:
        yield f"not installed: {', '.join(found.missing)}"
    passes = max((len(row.times_ms) for row in found.rows), default=0)
    yield f"{passes} passes each, in turn. Only prunekit leaves out zeros; to the others they are weights like any."
    yield "MiB: of the whole process, libraries included, during a pass. Differs: absolute, from eager's output."


def _cells(found: Bench, row: Row) -> tuple[str, ...]:
    low, median, high = row.quartiles_ms
    speedup = found.speedup(row)
    return (
        _ms(median),
        f"{_ms(low)} .. {_ms(high)}",
        "-" if speedup is None else f"{speedup:.2f}x",
        "-" if row.peak_mib is None else f"{row.peak_mib:,.0f}",
        "-" if row.difference is None else f"{row.difference:.1e}" if row.difference else "0",
    )


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({part / whole:.2%})" if whole else f"{part:,} of 0"


def _ms(value: float) -> str:
    return f"{value:,.{0 if value >= 1000 else 1 if value >= 10 else 3}f}"


def bench_csv(found: Bench) -> str:
    """Return a line for each row, with everything about the network and the machine repeated; failures stay empty."""
    lines: list[dict[str, Any]] = []
    for row in found.rows:
        low, median, high = row.quartiles_ms if row.times_ms else (None, None, None)
        lines.append(
            {
                "source": found.source,
                "backend": row.backend,
                "input": shape_text(row.shape),
                "median_ms": median,
                "quartile1_ms": low,
                "quartile3_ms": high,
                "min_ms": min(row.times_ms, default=None),
                "passes": len(row.times_ms),
                "speedup_over_eager": found.speedup(row),
                "peak_mib": row.peak_mib,
                "max_difference": row.difference,
                "failure": row.failure,
                **asdict(found.size),
                "kept_of_all": found.size.kept_of_all,
                "macs_dense": found.macs[row.shape].dense,
                "macs_kept": found.macs[row.shape].kept,
                "cpu": found.machine.cpu,
                "threads": found.machine.threads,
                "versions": " ".join(f"{name}={version}" for name, version in found.machine.versions.items()),
            }
        )
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
