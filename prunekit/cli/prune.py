"""``prunekit prune``: one cut of a trained network, written as a ticket file."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from torch import nn

from prunekit.amount import Density, MacDensity, Target
from prunekit.bench.result import shape_text
from prunekit.cli.calibrate import Data, choose, find_data, mean_psnr_db, open_source, resolved, worded
from prunekit.cli.export import remarks, say_written
from prunekit.cli.inspect import NAMES, percent, short
from prunekit.denominator import OF, share_of
from prunekit.errors import DataError, SelectionError, nearest
from prunekit.files import refuse_existing
from prunekit.masks import Masks
from prunekit.measure import count_macs, evaluating
from prunekit.pruner import prune
from prunekit.rewind import recalibrate, restore, snapshot
from prunekit.select import parameters
from prunekit.sparse.export import export_sparse
from prunekit.sparse.ticket import Ticket


def prune_source(
    source: str,
    out: Path,
    *,
    density: float,
    of: str,
    scorer: str,
    allocation: str,
    include: Sequence[str],
    exclude: Sequence[str],
    calibrate: Path | None,
    noise: float | None,
    images: int,
    crop: int,
    stage: str | None,
    network: str | None,
    shape: str | None,
) -> None:
    """Cut, write the ticket, read it back, and print what it keeps, costs and, where there are targets, is worth."""
    refuse_existing(out)
    Density(density)
    if of not in OF:
        raise SelectionError(f"--of {of} is not possible: {nearest(of, OF)}")
    score, allocate = resolved("scorer", scorer), resolved("allocation", allocation)
    ticket = open_source(source, stage=stage, network=network, shape=shape)
    model = ticket.model()
    now = choose(ticket, model, include, exclude)
    target = _target(density, of, ticket, model, now)
    data = find_data(source, model, calibrate, noise=noise, images=images, crop=crop)
    looked_at = worded(scorer, score, data)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"{source}{f', stage {ticket.about.stage}' if ticket.about.stage else ''}: {ticket.density}")
    for line in (*remarks(ticket), *([f"calibration: {data.told}"] if data else [])):
        console.print(line)
    found = prune(model, now, target, scorer=score, allocation=allocate, data=looked_at)
    masks = _whole(ticket.masks, found, model)
    where = "" if found == masks else f" to {percent(found.kept, found.prunable)} in {len(found)} tensors"
    before = _worth(model, data)
    masks.apply_(model)
    remark = _recalibrated(model, data)
    pruned = _ticket(ticket, model, masks)
    written = export_sparse(pruned, out)
    console.print(f"pruned by {scorer}, {allocation}{where}: {pruned.density}")
    told = (*_macs(pruned, model, ticket.masks), *remark, *_told(data, before, _worth(model, data)))
    for line in (*told, *_emptied(masks, out)):
        console.print(line)
    say_written(written, out, None, console)


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


def _recalibrated(model: nn.Module, data: Data | None) -> list[str]:
    """Re-estimate BatchNorm's statistics where there is data; return what was done, if there are any."""
    before = snapshot(model)
    try:
        done = recalibrate(model, data.calibration.inputs(model) if data else [])
    except DataError:
        if data:
            raise
        return ["BatchNorm's statistics are the source's: --calibrate DIR re-estimates them"]
    except ValueError as cause:  # torch's, of one value a channel
        restore(model, before)
        return [f"BatchNorm's statistics are the source's, since these data do not allow an estimate: {cause}"]
    return ["BatchNorm's statistics were re-estimated on the calibration inputs"] if done else []


def _worth(model: nn.Module, data: Data | None) -> tuple[float, ...]:
    """Return the mean loss, and the PSNR where the loss is a mean squared error; nothing without targets."""
    if data is None or data.calibration.loss is None:
        return ()
    with evaluating(model):
        losses = data.losses(model)
    return (statistics.fmean(losses), *([mean_psnr_db(losses)] if data.squared else []))


def _told(data: Data | None, before: tuple[float, ...], after: tuple[float, ...]) -> Iterator[str]:
    if data and before:
        name = "mean squared error" if data.squared else "mean loss"
        yield f"{name} on the calibration data: {before[0]:.4g} before, {after[0]:.4g} after"
    if data and data.squared:
        yield f"PSNR there, mean of the images: {before[1]:.2f} dB before, {after[1]:.2f} dB after"


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
