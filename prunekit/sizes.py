"""Sizes: a model's tensors and the attributes of its modules that count channels, and making both smaller."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from prunekit.errors import CheckpointError, nearest
from prunekit.select import canonical, parameters


def resize_(model: nn.Module, shapes: Mapping[str, tuple[int, ...]], attributes: Mapping[str, int]) -> None:
    """Give parameters and buffers smaller shapes, with memory that is still to be filled, and set attributes.

    For loading a compacted file into a freshly built dense network. Such a file may come from a stranger, so nothing
    can grow, and nothing but whole numbers of modules can be set.

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
        if not _fits(value, size_at(owners[name], name.rpartition(".")[2])):
            raise CheckpointError(
                f"the file sets {name!r} to {value!r}: it must be a positive number no larger than now."
            )
    empty = {name: named[name].detach().new_empty(shape) for name, shape in shapes.items()}
    write_(named, owners, empty, attributes)


def _fits(size: object, now: int) -> bool:
    return type(size) is int and min(1, now) <= size <= now


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return canonical name -> live parameter or buffer; tied ones once, under their first name."""
    return {**parameters(model), **{canonical(name): buffer for name, buffer in model.named_buffers()}}


def sizes_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return canonical path of every attribute that may be a size -> the module that has it.

    Those are positive whole numbers, and tuples of one.
    """
    return {
        canonical(f"{path}.{attribute}" if path else attribute): module
        for path, module in model.named_modules(remove_duplicate=False)
        for attribute in vars(module)
        if not attribute.startswith("_") and size_at(module, attribute) > 0
    }


def size_at(module: nn.Module, attribute: str) -> int:
    """Return the size that an attribute holds; 0 if it is none."""
    value = getattr(module, attribute, None)
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    return value if type(value) is int else 0


def write_(
    named: Mapping[str, Tensor],
    owners: Mapping[str, nn.Module],
    tensors: Mapping[str, Tensor],
    attributes: Mapping[str, int],
) -> None:
    """Put other tensors into the places of these, and set attributes; gradients go, the objects stay."""
    for name, tensor in tensors.items():
        named[name].data = tensor  # the object stays, and with it ties, requires_grad and the module's registration
        named[name].grad = None
    for name, value in attributes.items():
        attribute = name.rpartition(".")[2]
        whole = isinstance(getattr(owners[name], attribute), tuple)
        setattr(owners[name], attribute, (value,) if whole else value)
