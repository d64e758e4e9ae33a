"""``prunekit inspect``: a pruned network, tensor by tensor, with the sums last."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from prunekit.sparse.before import Before
    from prunekit.sparse.inspect import Anatomy, Part

NAMES = 5
"""A sentence lists at most so many names."""


def inspect_source(source: str, *, as_json: bool, stage: str | None, network: str | None, shape: str | None) -> None:
    """Open a run, a file or a network by name, and show what it consists of."""
    from prunekit.bench.result import parse_shape, shape_text
    from prunekit.sparse.before import before
    from prunekit.sparse.inspect import inspect
    from prunekit.sparse.source import load

    ticket = load(source, stage=stage, network=network)
    ticket = (ticket.taking(parse_shape(shape)) if shape else ticket).masked()
    example = None if ticket.input_shape is None else ticket.example()
    model = ticket.model()
    if example is not None:
        ticket.output()  # says so if the network does not take such an input
    anatomy = inspect(model, ticket.masks, example)
    parts = [source, f"stage {ticket.about.stage}" if ticket.about.stage else ""]
    parts += [] if ticket.trained else ["fresh weights (seed 0), not trained"]
    parts += ["channels removed"] if ticket.about.compacted else []
    parts += [] if example is None else [f"multiply-adds for one input of {shape_text(tuple(example.shape))}"]
    console = Console(markup=False, width=None if Console().is_terminal else 200)  # a file has room for whole names
    once = before(ticket, [] if example is None else [tuple(example.shape)])
    show_inspection(anatomy, title=", ".join(filter(None, parts)), as_json=as_json, console=console, before=once)


def show_inspection(
    anatomy: Anatomy, *, title: str, as_json: bool, console: Console, before: Before | None = None
) -> None:
    """Print the table and, last, what a reader came for: the sums in words; or everything as one JSON object."""
    if as_json:
        console.print(_json(anatomy, title, before), soft_wrap=True, markup=False, highlight=False)
        return
    console.print(Text(title))
    console.print(_table(anatomy))
    console.print()
    for line in (*_remarks(anatomy), *_sums(anatomy), *_shares(anatomy, before)):
        console.print(Text(line))


def _json(anatomy: Anatomy, title: str, before: Before | None) -> str:
    return json.dumps(
        {
            "title": title,
            "tensors": [asdict(part) for part in anatomy.parts],
            "other_macs": anatomy.other_macs and asdict(anatomy.other_macs),
            "never_used": anatomy.never_used,
            "totals": asdict(anatomy.totals),
            "before": before
            and {
                "parameters": before.parameters,
                "bytes": before.bytes,
                "macs": next(iter(before.macs.values()), None),
            },
        },
        indent=1,
    )


def _table(anatomy: Anatomy) -> Table:
    counted = anatomy.other_macs is not None
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("tensor", overflow="fold")
    table.add_column("shape", no_wrap=True)
    for title in ("\nkept", "bytes\ndense", "\nsparse", *(("MACs\ndense", "\nkept") if counted else ())):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("dead\nout", "\nin"):
        table.add_column(title, justify="right", no_wrap=True)
    for part in anatomy.parts:
        table.add_row(*_cells(part, counted))
    return table


def _cells(part: Part, counted: bool) -> Iterator[Text]:
    yield Text(part.name)
    yield Text("x".join(map(str, part.shape)) or "1")
    yield Text(percent(part.kept, part.size) if part.prunable else "-")
    yield Text(short(part.dense_bytes))
    yield Text(short(part.sparse_bytes))
    if counted:
        yield Text(short(part.macs.dense) if part.macs else "-")
        yield Text(short(part.macs.kept) if part.macs else "-")
    for dead in (part.dead_outputs, part.dead_inputs):
        yield Text("-" if dead is None else str(dead))


def _remarks(anatomy: Anatomy) -> Iterator[str]:
    """Yield what the table does not show."""
    yield "kept: of a prunable tensor, '-' for others; dead: channels with nothing but zeros; k, M, G: powers of 1000"
    empty = [part.name for part in anatomy.parts if part.prunable and not part.kept]
    if empty:
        yield f"nothing is kept of {listed(empty)}"
    happen = [part.name for part in anatomy.parts if part.prunable and part.nonzero - part.revived < part.kept]
    if happen:
        yield f"some kept weights happen to be 0 in {listed(happen)}"
    alive = [part.name for part in anatomy.parts if part.revived]
    if alive:
        yield f"some cut weights are not 0 in {listed(alive)}: apply the masks to this network before using it"
    if anatomy.never_used:
        yield f"never used: the forward pass does not read {listed(anatomy.never_used)}"


def _sums(anatomy: Anatomy) -> Iterator[str]:
    """Yield the sums, each with what it is a share of."""
    sums = anatomy.totals
    yield ""
    yield f"kept, of the prunable parameters: {share(sums.kept, sums.prunable)}"
    yield f"kept, of all parameters: {share(sums.kept_of_all, sums.parameters)}"
    yield f"not zero, of all parameters: {share(sums.nonzero, sums.parameters)}"
    if sums.buffers:
        yield f"buffers, in none of these: {sums.buffers:,} entries"
    yield f"bytes in a ticket file without its header, of all: {share(sums.sparse_bytes, sums.dense_bytes)}"
    if sums.macs is not None and anatomy.other_macs is not None:
        yield f"multiply-adds with a kept weight or none, of all: {share(sums.macs.kept, sums.macs.dense)}"
        yield f"multiply-adds by no parameter, in both: {anatomy.other_macs.dense:,}"
    yield f"dead channels: {sums.dead_outputs:,} outputs, {sums.dead_inputs:,} inputs"


def _shares(anatomy: Anatomy, before: Before | None) -> Iterator[str]:
    """Yield what is left of the network before channels were removed."""
    if before is None:
        return
    sums = anatomy.totals
    yield ""
    yield "of the network before channels were removed:"
    yield f"parameters: {share(sums.parameters, before.parameters)}"
    yield f"bytes of all tensors: {share(sums.dense_bytes, before.bytes)}"
    for macs in before.macs.values():
        yield f"multiply-adds: {share(sums.macs.dense if sums.macs else 0, macs)}"


def share(part: int, whole: int) -> str:
    """Return a count and its share in words, e.g. ``"3 of 4 (75.0%)"``."""
    return f"{part:,} of {whole:,} ({percent(part, whole)})"


def percent(part: int, whole: int) -> str:
    """Return a share that says 0% and 100% only where it is exactly that."""
    if part in (0, whole):
        return "100%" if part else "0%"
    return f"{min(max(100 * part / whole, 0.01), 99.99):.{1 if 0.1 <= 100 * part / whole < 99.9 else 2}f}%"


def short(count: int) -> str:
    """Return a count in at most four characters, e.g. ``"884k"`` or ``"1.2M"``."""
    value, unit = float(count), 0
    while value >= 999.5:
        value, unit = value / 1000, unit + 1
    return f"{value:.{1 if unit and value < 9.95 else 0}f}{' kMGTP'[unit].strip()}"


def listed(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = len(names) - NAMES
    return ", ".join(names[:NAMES]) + (f" and {more} more (--json has all)" if more > 0 else "")
