"""``prunekit prune``: one cut of a trained network, written as a ticket file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from torch import nn

from prunekit.amount import Density, MacDensity, Target
from prunekit.bench.result import shape_text
from prunekit.cli.calibrate import about_data, choose, find_data, open_source, resolved, worded
from prunekit.cli.export import opening, remarks, say_written
from prunekit.cli.inspect import NAMES, percent, short
from prunekit.cli.options import Asked
from prunekit.cli.worth import recalibrated, told, worth
from prunekit.denominator import OF, share_of
from prunekit.errors import SelectionError, nearest
from prunekit.files import refuse_existing
from prunekit.masks import Masks
from prunekit.measure import count_macs
from prunekit.pruner import prune
from prunekit.select import parameters
from prunekit.sparse.export import export_sparse
from prunekit.sparse.ticket import Ticket


def prune_weights(asked: Asked, *, allocation: str, include: Sequence[str]) -> None:
    """Cut, write the ticket, read it back, and print what it keeps, costs and, where there are targets, is worth."""
    refuse_existing(asked.out)
    Density(asked.density)
    of = asked.of or "prunable"
    if of not in OF:
        raise SelectionError(f"--of {of} is not possible: {nearest(of, OF)}")
    score, allocate = resolved("scorer", asked.scorer), resolved("allocation", allocation)
    ticket = open_source(asked.origin)
    model = ticket.model()
    now = choose(ticket, model, include, asked.exclude)
    target = _target(asked.density, of, ticket, model, now)
    data = find_data(asked.origin, model, asked.pictures)
    looked_at = worded(asked.scorer, score, data)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for line in (opening(asked.origin.source, ticket), *remarks(ticket), *about_data(data)):
        console.print(line)
    found = prune(model, now, target, scorer=score, allocation=allocate, data=looked_at)
    masks = _whole(ticket.masks, found, model)
    where = "" if found == masks else f" to {percent(found.kept, found.prunable)} in {len(found)} tensors"
    before = worth(model, data)
    masks.apply_(model)
    remark = recalibrated(model, data)
    pruned = _ticket(ticket, model, masks)
    written = export_sparse(pruned, asked.out)
    console.print(f"pruned by {asked.scorer}, {allocation}{where}: {pruned.density}")
    changes = (*_macs(pruned, model, ticket.masks), *remark, *told(data, before, worth(model, data)))
    for line in (*changes, *_emptied(masks, asked.out)):
        console.print(line)
    say_written(written, asked.out, None, console)


def _ticket(source: Ticket, model: nn.Module, masks: Masks) -> Ticket:
    about = source.about.model_copy(update={"measures": [], "stage": None})  # of another cut than this
    return replace(Ticket.of(model, masks, about), trusted=source.trusted)


def _target(density: float, of: str, ticket: Ticket, model: nn.Module, now: Masks) -> Target:
    """Return what the cut is asked for, having compared it with what the source has."""
    sizes = {name: parameter.numel() for name, parameter in parameters(model).items()}
    part, whole, what = float(now.kept), now.prunable, "prunable weights"
    if of != "prunable":
        for name, mask in ticket.masks.items():
            if name not in now and not mask.all():
                raise SelectionError(
                    f"the source has cut {name!r}, which is left out here, so a share of {of} would not be what the "
                    "name says: use --of prunable, or choose other patterns."
                )
    target = share_of(of, model, now.keys(), ticket.example)(Density(density))
    if of == "all":
        part, whole, what = sum(sizes.values()) - now.prunable + now.kept, sum(sizes.values()), "parameters"
    if isinstance(target, MacDensity):
        part, whole, what = target.macs(now.per_tensor()), target.total, "multiply-adds"
    if density * whole > part + 0.5:
        raise SelectionError(
            f"--density {density:g} is more than the source has: it keeps {part / whole:.2%} of its {what}, and what "
            "was cut is gone. Ask for less."
        )
    return target


def _whole(before: Masks, found: Masks, model: nn.Module) -> Masks:
    """Return the new masks together with those of tensors that the source has cut and that were left alone."""
    stay = {name: mask for name, mask in before.items() if name not in found and not mask.all()}
    both = {**stay, **found}
    return Masks({name: both[name] for name in parameters(model) if name in both})


def _macs(pruned: Ticket, model: nn.Module, before: Masks) -> Iterator[str]:
    example = pruned.example()
    old, new = (count_macs(model, example, masks) for masks in (before, pruned.masks))
    yield (
        f"multiply-adds for one input of {shape_text(tuple(example.shape))}: {short(old.kept)} before, "
        f"{short(new.kept)} after ({percent(new.kept, new.dense)} of all)"
    )


def _emptied(masks: Masks, out: Path) -> Iterator[str]:
    names = masks.emptied()
    if names:
        more = f" and {len(names) - NAMES} more (prunekit inspect {out} shows them)" if len(names) > NAMES else ""
        yield (
            f"warning: nothing is left of {', '.join(names[:NAMES])}{more}; an allocation with min_keep, or another "
            "one, prevents it"
        )
