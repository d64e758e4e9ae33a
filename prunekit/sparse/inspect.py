"""What a pruned network consists of: each tensor with what is kept of it, its bytes, multiply-adds, dead channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor, nn

from prunekit.bits import packed_bytes
from prunekit.masks import Masks
from prunekit.measure import Macs, macs_per_tensor
from prunekit.rewind import snapshot
from prunekit.select import parameters

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@final
@dataclass(frozen=True)
class Part:
    """One tensor of a network's state.

    Args:
        name: canonical.
        shape: as it is, cut or not.
        dtype: e.g. ``"float32"``.
        parameter: False for a buffer.
        prunable: whether the masks have it.
        size: number of entries.
        kept: entries that the masks keep; all where there is no mask.
        nonzero: entries whose value is not 0; a kept weight may happen to be 0.
        revived: entries that the masks cut and that are not 0 all the same.
        dense_bytes: in memory, and in a plain weights file.
        sparse_bytes: in a ticket file: a bit per entry and the kept values, or as dense where nothing is cut.
        macs: multiply-adds by this tensor in one forward pass; None without an example, and for buffers.
        read: whether the forward pass reads it; None without an example, and for buffers.
        dead_outputs: output channels that no weight leads to; None where the tensor is no layer's weight.
        dead_inputs: input channels that no weight reads; None there, and for depthwise layers, whose outputs say it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    parameter: bool
    prunable: bool
    size: int
    kept: int
    nonzero: int
    revived: int
    dense_bytes: int
    sparse_bytes: int
    macs: Macs | None
    read: bool | None
    dead_outputs: int | None
    dead_inputs: int | None


@final
@dataclass(frozen=True)
class Totals:
    """Sums over a network: entries of the parameters, entries of the buffers, then bytes and multiply-adds of both.

    ``kept`` counts prunable entries only; ``kept_of_all`` adds the parameters that may not be pruned.
    """

    prunable: int
    kept: int
    parameters: int
    kept_of_all: int
    nonzero: int
    buffers: int
    dense_bytes: int
    sparse_bytes: int
    macs: Macs | None
    dead_outputs: int
    dead_inputs: int


@final
@dataclass(frozen=True)
class Anatomy:
    """A network tensor by tensor, in model order.

    Args:
        parts: parameters and buffers, each tensor once.
        other_macs: multiply-adds by no parameter, such as attention's products; None without an example.
    """

    parts: tuple[Part, ...]
    other_macs: Macs | None

    @property
    def never_used(self) -> tuple[str, ...]:
        """Names of the parameters that the forward pass does not read; empty without an example."""
        return tuple(part.name for part in self.parts if part.read is False)

    @property
    def totals(self) -> Totals:
        """Sums, with every denominator."""
        own = [part for part in self.parts if part.parameter]
        prunable = [part for part in own if part.prunable]
        counts = [part.macs for part in own if part.macs is not None] + [self.other_macs or Macs(0, 0)]
        whole = Macs(sum(each.dense for each in counts), sum(each.kept for each in counts))
        return Totals(
            prunable=sum(part.size for part in prunable),
            kept=sum(part.kept for part in prunable),
            parameters=sum(part.size for part in own),
            kept_of_all=sum(part.kept for part in own),
            nonzero=sum(part.nonzero for part in own),
            buffers=sum(part.size for part in self.parts if not part.parameter),
            dense_bytes=sum(part.dense_bytes for part in self.parts),
            sparse_bytes=sum(part.sparse_bytes for part in self.parts),
            macs=whole if self.other_macs is not None else None,
            dead_outputs=sum(part.dead_outputs or 0 for part in self.parts),
            dead_inputs=sum(part.dead_inputs or 0 for part in self.parts),
        )


def inspect(model: nn.Module, masks: Masks, example: Any | None) -> Anatomy:
    """Take stock of a pruned network.

    Args:
        model: bare or wrapped; left as it is.
        masks: of this model; the values need not be zero where they cut.
        example: one input with a batch axis, for multiply-adds and for what is never used; None for neither. The
            model runs once on it, in eval mode.

    Raises:
        MaskError: the masks do not fit the model.

    Example:
        >>> model, masks = nn.Linear(2, 2), Masks({"weight": torch.tensor([[True, False], [False, False]])})
        >>> masks.apply_(model)
        >>> anatomy = inspect(model, masks, torch.zeros(1, 2))
        >>> weight = anatomy.parts[0]
        >>> weight.kept, weight.dead_outputs, weight.dead_inputs, weight.dense_bytes, weight.sparse_bytes
        (1, 1, 1, 16, 5)
        >>> anatomy.totals.macs
        Macs(dense=4, kept=1)
    """
    revived = masks.revived(model)
    macs = macs_per_tensor(model, example, masks) if example is not None else None
    own = parameters(model)
    layers = _layers(model, own)
    parts = tuple(
        replace(
            _part(name, tensor, masks.get(name), layers.get(name)),
            parameter=name in own,
            revived=revived.get(name, 0),
            macs=macs.get(name, Macs(0, 0)) if macs is not None and name in own else None,
            read=name in macs if macs is not None and name in own else None,
        )
        for name, tensor in snapshot(model).items()
    )
    return Anatomy(parts, macs[""] if macs is not None else None)


def _part(name: str, tensor: Tensor, mask: Tensor | None, layer: tuple[int, bool] | None) -> Part:
    """Return what can be said of a tensor by itself."""
    size, width = tensor.numel(), tensor.element_size()
    kept = size if mask is None else int(torch.count_nonzero(mask))
    dead_outputs, dead_inputs = _dead(tensor, *layer) if layer else (None, None)
    return Part(
        name=name,
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
        parameter=True,
        prunable=mask is not None,
        size=size,
        kept=kept,
        nonzero=int(torch.count_nonzero(tensor)),
        revived=0,
        dense_bytes=size * width,
        sparse_bytes=packed_bytes(size, kept, width),
        macs=None,
        read=None,
        dead_outputs=dead_outputs,
        dead_inputs=dead_inputs,
    )


def _layers(model: nn.Module, own: Mapping[str, nn.Parameter]) -> dict[str, tuple[int, bool]]:
    """Return, for the weight of each convolution and linear layer, its groups and whether inputs are its first axis."""
    names = {id(parameter): name for name, parameter in own.items()}
    found: dict[str, tuple[int, bool]] = {}
    for module in model.modules():
        if not isinstance(module, (*_CONV, *_TRANSPOSED, nn.Linear)) or id(module.weight) not in names:
            continue  # a weight that is computed, e.g. from a norm and a direction, is no parameter
        groups = 1 if isinstance(module, nn.Linear) else module.groups
        found[names[id(module.weight)]] = (groups, isinstance(module, _TRANSPOSED))
    return found


def _dead(weight: Tensor, groups: int, transposed: bool) -> tuple[int, int | None]:
    """Return how many output and input channels have nothing but zeros; None for a depthwise layer's inputs."""
    live = (weight != 0).flatten(2).any(2) if weight.dim() > 2 else weight != 0
    paths = live.unflatten(0, (groups, -1))  # groups x first axis in a group x second axis
    outputs, inputs = paths.any(2), paths.any(1)
    if transposed:
        outputs, inputs = inputs, outputs
    depthwise = groups > 1 and inputs.shape[1] == 1
    return int((~outputs).sum()), None if depthwise else int((~inputs).sum())
