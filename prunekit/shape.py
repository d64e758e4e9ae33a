"""Shapes: which indices of which axes a smaller network keeps of a larger one, and giving a network that shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from prunekit.errors import CheckpointError, nearest
from prunekit.select import canonical, parameters

RESIZABLE = (
    "in_channels",
    "out_channels",
    "groups",
    "in_features",
    "out_features",
    "num_features",
    "num_parameters",
)
"""Attributes of modules that say how large a parameter is; nothing else may change with a shape."""


@final
@dataclass(frozen=True, eq=False)
class Shape:
    """The kept indices on each axis that shrinks, and the integer attributes of modules that change with them.

    A value, like ``Masks``: it can be applied to any copy of the dense network, under the names that one has.

    Args:
        kept: canonical name of a parameter or buffer -> axis -> int64 indices on the CPU, ascending.
        attributes: canonical path of an attribute, e.g. ``"body.0.out_channels"`` -> its value afterwards.

    Example:
        >>> import torch
        >>> shape = Shape({"weight": {0: torch.tensor([0, 2])}}, {"out_features": 2})
        >>> model = nn.Linear(2, 3, bias=False)
        >>> shape.apply_(model)
        >>> model
        Linear(in_features=2, out_features=2, bias=False)
        >>> model.weight.shape
        torch.Size([2, 2])
    """

    kept: Mapping[str, Mapping[int, Tensor]]
    attributes: Mapping[str, int]

    def select(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors (parameters, buffers, masks) in this shape; names it does not know pass through.

        Args:
            tensors: canonical name -> tensor as large as the dense network's, on any device, of any type.

        Raises:
            CheckpointError: a tensor is too small for the indices, so it is of another network.
        """
        return {name: self._select(name, tensor) for name, tensor in tensors.items()}

    def apply_(self, model: nn.Module) -> None:
        """Shrink the model in place: the same parameters under the same names, tied ones still tied.

        Gradients are dropped, as they have the old shape; an optimiser has to be made anew.

        Raises:
            CheckpointError: the model is another network; it is unchanged then.
        """
        named, owners = tensors_of(model), sizes_of(model)
        for names, known in ((self.kept, named), (self.attributes, owners)):
            for name in names:
                if name not in known:
                    raise CheckpointError(f"the shape holds {name!r}, which the model lacks; {nearest(name, known)}")
        smaller = self.select({name: named[name].detach() for name in self.kept})
        _write_(named, owners, smaller, self.attributes)

    def _select(self, name: str, tensor: Tensor) -> Tensor:
        for axis, indices in self.kept.get(name, {}).items():
            if axis >= tensor.dim() or int(indices[-1]) >= tensor.shape[axis]:
                raise CheckpointError(
                    f"{name!r} has shape {tuple(tensor.shape)}, and index {int(indices[-1])} of axis {axis} is asked "
                    "of it: the shape belongs to another network, or is applied for the second time."
                )
            tensor = tensor.index_select(axis, indices.to(tensor.device))
        return tensor


def resize_(model: nn.Module, shapes: Mapping[str, tuple[int, ...]], attributes: Mapping[str, int]) -> None:
    """Give parameters and buffers smaller shapes, with memory that is still to be filled, and set attributes.

    For loading a compacted file into a freshly built dense network. Such a file may come from a stranger, so nothing
    can grow, and nothing but the sizes in ``RESIZABLE`` can be set.

    Args:
        model: bare or wrapped.
        shapes: canonical name -> shape of the same rank, no axis larger than now.
        attributes: canonical path of an attribute -> positive value, not larger than now.

    Raises:
        CheckpointError: an entry is none of these; the model is unchanged then.

    Example:
        >>> model = nn.Linear(4, 3, bias=False)
        >>> resize_(model, {"weight": (2, 4)}, {"out_features": 2})
        >>> model
        Linear(in_features=4, out_features=2, bias=False)
        >>> model.weight.shape
        torch.Size([2, 4])
    """
    named, owners = tensors_of(model), sizes_of(model)
    for name, shape in shapes.items():
        if name not in named:
            raise CheckpointError(f"the file holds {name!r}, which the network lacks; {nearest(name, named)}")
        now = tuple(named[name].shape)
        fits = len(shape) == len(now) and all(_fits(size, old) for size, old in zip(shape, now, strict=True))
        if not fits:
            raise CheckpointError(
                f"{name!r} has shape {tuple(shape)} in the file, which is no part of {now} in the network: the file "
                "belongs to another network, or is damaged."
            )
    for name, value in attributes.items():
        if name not in owners:
            raise CheckpointError(f"the file sets {name!r}, which is no size of a layer; {nearest(name, owners)}")
        if not _fits(value, getattr(owners[name], name.rpartition(".")[2])):
            raise CheckpointError(
                f"the file sets {name!r} to {value!r}: it must be a positive number no larger than now."
            )
    empty = {name: named[name].detach().new_empty(shape) for name, shape in shapes.items()}
    _write_(named, owners, empty, attributes)


def _fits(size: object, now: int) -> bool:
    return type(size) is int and min(1, now) <= size <= now


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return canonical name -> live parameter or buffer; tied ones once, under their first name."""
    return {**parameters(model), **{canonical(name): buffer for name, buffer in model.named_buffers()}}


def sizes_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return canonical path of every attribute that may change -> the module that has it."""
    return {
        canonical(f"{path}.{attribute}" if path else attribute): module
        for path, module in model.named_modules(remove_duplicate=False)
        for attribute in RESIZABLE
        if type(getattr(module, attribute, None)) is int
    }


def _write_(
    named: Mapping[str, Tensor],
    owners: Mapping[str, nn.Module],
    tensors: Mapping[str, Tensor],
    attributes: Mapping[str, int],
) -> None:
    for name, tensor in tensors.items():
        named[name].data = tensor  # the object stays, and with it ties, requires_grad and the module's registration
        named[name].grad = None
    for name, value in attributes.items():
        setattr(owners[name], name.rpartition(".")[2], value)
