"""Masks: which weights are kept, by name; applying them, holding them through training, and saving them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from prunekit.bits import pack, unpack
from prunekit.errors import MaskError, nearest
from prunekit.select import parameters, prunable

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@final
@dataclass(frozen=True, eq=False)
class Masks(Mapping[str, Tensor]):
    """Canonical parameter name -> bool tensor of the parameter's shape, True where kept; in model order, on the CPU.

    A value: nothing here changes it, and it holds no reference to a model. Every tensor in it is prunable.

    Example:
        >>> masks = Masks({"weight": torch.tensor([[True, False], [True, True]])})
        >>> masks.kept, masks.prunable, masks.density
        (3, 4, 0.75)
        >>> model = nn.Linear(2, 2, bias=False)
        >>> masks.apply_(model)
        >>> int(torch.count_nonzero(model.weight))
        3
    """

    tensors: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for name, mask in self.tensors.items():
            if mask.dtype != torch.bool or mask.device.type != "cpu":
                raise MaskError(f"mask {name!r} must be a bool tensor on the CPU, not {mask.dtype} on {mask.device}.")

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Masks):
            return NotImplemented
        return self.keys() == other.keys() and all(torch.equal(mask, other[name]) for name, mask in self.items())

    def __hash__(self) -> int:
        return hash(self.digest())

    def __repr__(self) -> str:
        return f"Masks({self.kept} of {self.prunable} kept, {len(self)} tensors)"

    @staticmethod
    def dense(
        model: nn.Module, *, include: Sequence[str] = (), exclude: Sequence[str] = (), types: Sequence[str] = ()
    ) -> Masks:
        """Return masks that keep everything ``prunekit.select.prunable`` chooses; same arguments, same errors."""
        named = parameters(model)
        names = prunable(model, include=include, exclude=exclude, types=types)
        return Masks({name: torch.ones(named[name].shape, dtype=torch.bool, device="cpu") for name in names})

    @property
    def prunable(self) -> int:
        """Number of entries, kept or cut."""
        return sum(mask.numel() for mask in self.values())

    @property
    def kept(self) -> int:
        """Number of entries kept."""
        return sum(kept for kept, _ in self.per_tensor().values())

    @property
    def density(self) -> float:
        """Share of the prunable entries that is kept, in [0, 1]; 1 where there are none."""
        return self.kept / self.prunable if self.prunable else 1.0

    def per_tensor(self) -> dict[str, tuple[int, int]]:
        """Return name -> (kept, prunable)."""
        # NumPy counts several times as fast as torch
        return {name: (int(np.count_nonzero(mask.numpy())), mask.numel()) for name, mask in self.items()}

    def emptied(self) -> tuple[str, ...]:
        """Return the names of tensors of which nothing is kept."""
        return tuple(name for name, mask in self.items() if not mask.any())

    def apply_(self, model: nn.Module, since: object = None) -> None:
        """Write zeros where the masks cut; everything else in the model stays as it is, bit for bit.

        Args:
            model: bare or wrapped, on any device.
            since: an earlier cut that the model already has, as the ``Cut`` protocol asks; masks need not know it.

        Raises:
            MaskError: the model lacks a parameter or has it in another shape; nothing has been written then.
        """
        for name, parameter in _fitting(model, self).items():
            if not self[name].all():
                _zero_(parameter, _like(parameter, self[name]))

    def revived(self, model: nn.Module) -> dict[str, int]:
        """Return name -> number of cut weights that are not zero in the model, where there are any.

        Raises:
            MaskError: the masks do not fit the model.
        """
        counts = {
            name: int(torch.count_nonzero((parameter.detach() != 0).logical_and_(~_like(parameter, self[name]))))
            for name, parameter in _fitting(model, self).items()
        }
        return {name: count for name, count in counts.items() if count}

    def digest(self) -> str:
        """Return 16 hex digits over names, shapes and bits, equal exactly where masks are; for ranks to compare."""
        digest = hashlib.sha256()
        for name in sorted(self):
            digest.update(f"{name}{tuple(self[name].shape)}".encode())
            digest.update(pack(self[name]).numpy().tobytes())
        return digest.hexdigest()[:16]

    def state_dict(self) -> dict[str, Tensor]:
        """Return tensors that safetensors can store: per name, ``bits/`` (eight to a byte) and ``place/``.

        ``place/`` is int64: the position in model order, then the shape; safetensors itself forgets the order.
        """
        state: dict[str, Tensor] = {}
        for position, (name, mask) in enumerate(self.items()):
            state[f"bits/{name}"] = pack(mask)
            state[f"place/{name}"] = torch.tensor([position, *mask.shape], dtype=torch.int64)
        return state

    @staticmethod
    def load(state: Mapping[str, Any]) -> Masks:
        """Return the masks that ``state_dict`` described.

        Raises:
            MaskError: the tensors are no masks, or some are missing or damaged.
        """
        places = {key.partition("/")[2]: place.tolist() for key, place in state.items() if key.startswith("place/")}
        if not places or state.keys() != {f"{part}/{name}" for name in places for part in ("bits", "place")}:
            raise MaskError(f"these {len(state)} tensors are not masks written by PruneKit, or some are missing.")
        ordered = sorted(places.items(), key=lambda item: item[1][0])
        return Masks({name: unpack(state[f"bits/{name}"], shape, name=name) for name, (_, *shape) in ordered})


@contextmanager
def hold(model: nn.Module, masks: Masks) -> Iterator[None]:
    """Keep cut weights at zero through any training loop: a context manager.

    Entering applies the masks. Inside, every step of any torch optimiser in this process, wrapped, fused or compiled,
    is followed by writing zeros; gradients of cut weights are zeroed as they arrive, so that clipping and momentum see
    the ticket only. Copies and averages made elsewhere (deepcopy, EMA, Lookahead's slow weights) are not seen: use
    ``masks.apply_(copy)``. Leaving without an exception verifies, so that a write behind our back cannot go unnoticed.

    Args:
        model: bare or wrapped; nothing in it is renamed or swapped, and its ``state_dict`` keys stay.
        masks: from ``prune`` or ``Masks.load``; tensors of which nothing is cut cost nothing.

    Raises:
        MaskError: the masks do not fit the model, or on leaving a cut weight is not zero (the tensor is named).

    Example:
        >>> model = nn.Linear(4, 4)
        >>> masks = Masks({"weight": torch.eye(4, dtype=torch.bool)})
        >>> with hold(model, masks):
        ...     _ = model(torch.ones(4)).sum().backward()
        ...     torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1).step()
        >>> int(torch.count_nonzero(model.weight))
        4
    """
    masks.apply_(model)
    held = {name: parameter for name, parameter in _fitting(model, masks).items() if not masks[name].all()}
    kept = {name: _like(parameter, masks[name]) for name, parameter in held.items()}

    def zero_(name: str, tensor: Tensor) -> None:
        if kept[name].device != tensor.device:  # a trainer moved the model after we were entered
            kept[name] = kept[name].to(tensor.device)
        _zero_(tensor, kept[name])

    def after_step(*_: Any) -> None:
        for name, parameter in held.items():
            zero_(name, parameter)

    def on_gradient(name: str, parameter: Tensor) -> None:
        if parameter.grad is not None and parameter.grad.layout == torch.strided:
            zero_(name, parameter.grad)

    handles = [
        parameter.register_post_accumulate_grad_hook(partial(on_gradient, name))
        for name, parameter in held.items()
        if parameter.requires_grad
    ]
    if held:
        handles.append(register_optimizer_step_post_hook(after_step))
    try:
        yield
        for name, count in masks.revived(model).items():
            raise MaskError(
                f"{name!r} leaves hold() with {count} cut weights that are not zero: something other than a torch "
                "optimiser wrote to it (a copy, an average, load_state_dict); call masks.apply_(model) after it does."
            )
    finally:
        for handle in handles:
            handle.remove()


def _fitting(model: nn.Module, masks: Masks) -> dict[str, nn.Parameter]:
    """Return the parameters that the masks are for, or raise a MaskError that names the first that does not fit."""
    named = parameters(model)
    for name, mask in masks.items():
        if name not in named:
            raise MaskError(f"the masks hold {name!r}, which the model lacks; {nearest(name, named)}")
        if named[name].shape != mask.shape:
            raise MaskError(
                f"{name!r} has shape {tuple(mask.shape)} in the masks and {tuple(named[name].shape)} in the model: "
                "the masks belong to another network."
            )
    return {name: named[name] for name in masks}


def _like(parameter: Tensor, mask: Tensor) -> Tensor:
    """Return the mask on the parameter's device and in its memory layout, so that a write walks both in step."""
    return torch.empty_like(parameter, dtype=torch.bool, requires_grad=False).copy_(mask)


def _zero_(tensor: Tensor, kept: Tensor) -> None:
    """Write zero where not kept, by multiplying the bits as integers.

    Exact for infinities and NaN, unlike a product of floats, and several times faster than ``masked_fill_``, which
    takes a branch per weight.
    """
    tensor.detach().view(_INTEGERS[tensor.element_size()]).mul_(kept)
