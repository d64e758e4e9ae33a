"""Putting a model back: copies of its state, in-place restoring, and the BatchNorm statistics that a cut upsets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from prunekit.errors import CheckpointError, DataError, nearest
from prunekit.masks import Masks
from prunekit.select import canonical, matching
from prunekit.shape import Shape


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of everything in the model's ``state_dict`` that is a tensor, under canonical names.

    Parameters and buffers, each tensor once: tied ones under their first name, so that safetensors can store it.

    Example:
        >>> sorted(snapshot(nn.BatchNorm1d(2)))
        ['bias', 'num_batches_tracked', 'running_mean', 'running_var', 'weight']
    """
    return {name: tensor.detach().clone() for name, tensor in state(model).items()}


def restore(
    model: nn.Module, snapshot: Mapping[str, Tensor], cut: Masks | Shape | None = None, *, keep: Sequence[str] = ()
) -> None:
    """Copy a snapshot back into the model in place, bit for bit: what the cut keeps of it.

    Args:
        model: bare or wrapped, on any device; its parameters stay the same objects.
        snapshot: what ``snapshot`` returned for this model, or a file of it.
        cut: masks are applied last, so that the survivors are rewound and the rest is zero. A shape is one that the
            model has already, and the snapshot, taken of the dense network, is cut down to it.
        keep: globs of parameters and buffers that stay as they are now (a partial rewind).

    Raises:
        CheckpointError: names or shapes differ from the model's, or the snapshot's from the dense network's; nothing
            has been written then.
        SelectionError: a pattern of ``keep`` matches nothing.
        MaskError: the masks do not fit the model.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> start = snapshot(model)
        >>> _ = nn.init.zeros_(model.weight)
        >>> restore(model, start)
        >>> bool(torch.equal(model.weight, start["weight"]))
        True
    """
    live = state(model)
    if isinstance(cut, Shape):
        snapshot = _selected(snapshot, cut)
    for name in live.keys() ^ snapshot.keys():
        lacking, other = ("snapshot", snapshot) if name in live else ("model", live)
        raise CheckpointError(f"the {lacking} lacks {name!r}; {nearest(name, other)}")
    for name, tensor in live.items():
        if tensor.shape != snapshot[name].shape:
            theirs, ours = tuple(snapshot[name].shape), tuple(tensor.shape)
            advice = ": call shape.apply_(model) first" if isinstance(cut, Shape) else ""
            raise CheckpointError(f"{name!r} has shape {theirs} in the snapshot and {ours} in the model{advice}.")
    kept = {name for pattern in keep for name in matching(pattern, live, "keep")}
    with torch.no_grad():
        for name, tensor in live.items():
            if name not in kept:
                tensor.copy_(snapshot[name])
    if isinstance(cut, Masks):
        cut.apply_(model)


def _selected(snapshot: Mapping[str, Tensor], shape: Shape) -> Mapping[str, Tensor]:
    """Return what a shape keeps of a dense snapshot; of a smaller one its indices would select other channels."""
    for name, size in shape.sizes.items():
        if name in snapshot and tuple(snapshot[name].shape) != size:
            raise CheckpointError(
                f"{name!r} has shape {tuple(snapshot[name].shape)} in the snapshot and {size} in the dense network: "
                "take the snapshot before the first cut, or restore a later one without the shape."
            )
    return shape.select(snapshot)


def recalibrate(model: nn.Module, inputs: Iterable[object]) -> bool:
    """Re-estimate every BatchNorm's running statistics as the plain average over one forward pass per input.

    A cut or a rewind leaves them belonging to other weights. Only BatchNorm is in training mode meanwhile, so dropout
    is off; modes and momenta come back; no gradient is taken. A model without such statistics is left alone.

    Args:
        model: called as ``model(x)``.
        inputs: batches of network inputs, e.g. ``calibration.inputs()``; on the model's device.

    Returns:
        Whether the model has any BatchNorm with running statistics.

    Raises:
        DataError: there was no input; the statistics are as they were.

    Example:
        >>> norm = nn.BatchNorm1d(1)
        >>> recalibrate(norm, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])])
        True
        >>> norm.running_mean
        tensor([4.])
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not norms:
        return False
    batches = iter(inputs)
    for first in batches:
        _average(model, norms, chain([first], batches))
        return True
    raise DataError("recalibrate() was given no input: pass at least one batch.")


def _average(model: nn.Module, norms: list[nn.modules.batchnorm._BatchNorm], inputs: Iterable[object]) -> None:
    modes = [(module, module.training) for module in model.modules()]
    momenta = [(norm, norm.momentum) for norm in norms]
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.training, norm.momentum = True, None  # without momentum, torch keeps the cumulative average
        with torch.no_grad():
            for batch in inputs:
                model(batch)
    finally:
        for norm, momentum in momenta:
            norm.momentum = momentum
        for module, mode in modes:
            module.training = mode


def state(model: nn.Module) -> dict[str, Tensor]:
    """Return canonical name -> the live tensor, each tensor once."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and id(tensor) not in seen:
            if canonical(name) in found:
                raise CheckpointError(
                    f"two entries of the state are both called {canonical(name)!r} once 'module.' and '_orig_mod.' are "
                    "stripped from their names: rename the attribute 'module' of the model."
                )
            seen.add(id(tensor))
            found[canonical(name)] = tensor
    return found
