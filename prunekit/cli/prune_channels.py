"""``prunekit prune --structured``: one cut of channels, written as a ticket file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

from rich.console import Console
from rich.table import Table
from torch import nn

from prunekit.amount import Density, MacDensity, Target
from prunekit.bench.result import shape_text
from prunekit.bench.worker import forget_peak, peak_mib
from prunekit.calibration import Calibration
from prunekit.cli.calibrate import about_data, find_data, open_source, resolved, worded
from prunekit.cli.export import megabytes, opening, remarks, say_written
from prunekit.cli.inspect import percent, short
from prunekit.cli.options import Asked
from prunekit.cli.worth import recalibrated, told, worth
from prunekit.errors import SelectionError
from prunekit.files import refuse_existing
from prunekit.masks import Masks
from prunekit.measure import count_macs, latencies_ms, macs_per_tensor
from prunekit.select import parameters
from prunekit.shape import Shape
from prunekit.sparse.export import export_sparse
from prunekit.sparse.ticket import Ticket
from prunekit.structured.pruner import Structured

OF = ("all", "macs")


@final
@dataclass(frozen=True)
class Timed:
    """A shape, and what finding it took: time, and growth of the process's memory while it was looked for."""

    shape: Shape
    seconds: float
    mib: float


def prune_channels(asked: Asked, *, local: bool, multiple: int, least: int) -> None:
    """Cut, write the ticket, read it back, and print what the network costs before and after."""
    refuse_existing(asked.out)
    Density(asked.density)
    of = asked.of or "all"
    if of not in OF:
        raise SelectionError(
            f"--of {of} is not possible with --structured, which cuts out of all tensors: all or macs."
        )
    pruner = Structured(
        resolved("scorer", asked.scorer),
        across="local" if local else "global",
        multiple=multiple,
        least=least,
        exclude=tuple(asked.exclude),
    )
    ticket = open_source(asked.origin)
    model = ticket.model()
    target = _target(asked.density, of, ticket, model)
    data = find_data(asked.origin, model, asked.pictures)
    looked_at = replace(worded(asked.scorer, pruner.scorer, data), example=ticket.example())
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for line in (opening(asked.origin.source, ticket), *remarks(ticket), *about_data(data)):
        console.print(line)
    found = _cut(pruner, model, target, looked_at)
    before = worth(model, data)
    found.shape.apply_(model)
    remark = recalibrated(model, data)
    pruned = _ticket(ticket, model, found.shape)
    written = export_sparse(pruned, asked.out)
    console.print(f"pruned by {asked.scorer}, {pruner.across}: {pruned.density}")
    console.print(_table(ticket, pruned))
    console.print(f"the cut took {found.seconds:.1f} s and {found.mib:,.0f} MiB of memory beside the network")
    for line in (*remark, *told(data, before, worth(model, data))):
        console.print(line)
    say_written(written, asked.out, None, console)


def _target(density: float, of: str, ticket: Ticket, model: nn.Module) -> Target:
    """Return what the cut is asked for: a share of the dense network, in terms of the one that the source has."""
    sizes = {name: parameter.numel() for name, parameter in parameters(model).items()}
    now, what, cost = sum(sizes.values()), "parameters", dict[str, int]()
    whole = ticket.about.parameters_before or now
    if of == "macs":
        cost = {name: macs.dense for name, macs in macs_per_tensor(model, ticket.example()).items()}
        now = whole = sum(cost.values())
        what = "multiply-adds"
        if ticket.about.compacted:
            whole = count_macs(ticket.dense_model(), ticket.example()).dense
    share = density * whole / now
    if share > 1:
        raise SelectionError(
            f"--density {density:g} is more than the source has: it keeps {now / whole:.2%} of the dense network's "
            f"{what}, and what was cut is gone. Ask for less."
        )
    return MacDensity(share, cost) if of == "macs" else Density(share)


def _cut(pruner: Structured, model: nn.Module, target: Target, data: Calibration) -> Timed:
    forget_peak()
    before_mib, began_s = peak_mib(), time.perf_counter()
    shape = pruner.cut(model, pruner.start(model), target, data)
    return Timed(shape, time.perf_counter() - began_s, peak_mib() - before_mib)


def _ticket(source: Ticket, model: nn.Module, shape: Shape) -> Ticket:
    """Return the smaller model as a ticket; masks that the source has become smaller with it."""
    about = source.about.shrunk(shape).model_copy(update={"measures": [], "stage": None})  # of another cut than this
    return replace(Ticket.of(model, Masks(shape.select(source.masks)), about), trusted=source.trusted)


def _table(before: Ticket, after: Ticket) -> Table:
    """Return what the network costs as the source had it and as it is written, by every measure there is."""
    table = Table("", box=None, pad_edge=False)
    for name in ("before", "after", "left"):
        table.add_column(name, justify="right")
    for name, *cells in _rows(before, after):
        table.add_row(name, *cells)
    return table


def _rows(before: Ticket, after: Ticket) -> Iterator[tuple[str, ...]]:
    models, example = [before.model(), after.model()], before.example()
    old, new = (sum(each.numel() for each in parameters(model).values()) for model in models)
    yield "parameters", f"{old:,}", f"{new:,}", percent(new, old)
    old, new = (sum(t.numel() * t.element_size() for t in ticket.tensors.values()) for ticket in (before, after))
    yield "bytes of all tensors", megabytes(old), megabytes(new), percent(new, old)
    old, new = (count_macs(model, example).dense for model in models)
    yield f"multiply-adds, {shape_text(tuple(example.shape))}", short(old), short(new), percent(new, old)
    slow, fast = latencies_ms(models, example)
    yield "milliseconds, eager, in turn", f"{slow:.1f}", f"{fast:.1f}", f"{fast / slow:.0%}"
