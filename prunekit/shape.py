"""Shapes: which indices of which axes a smaller network keeps of a larger one, and giving a network that shape."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from prunekit.errors import CheckpointError, nearest
from prunekit.select import parameters
from prunekit.sizes import sizes_of, tensors_of, write_


@final
@dataclass(frozen=True, eq=False)
class Shape:
    """The kept indices on each axis that shrinks, and the attributes of modules that change with them.

    A value, like ``Masks``: it can be applied to any copy of the dense network, under the names that one has.

    Args:
        indices: canonical name of a parameter or buffer -> axis -> int64 indices on the CPU, ascending.
        attributes: canonical path of an attribute, e.g. ``"body.0.out_channels"`` -> its value afterwards; an attribute
            that is a tuple of one size, like a norm's ``normalized_shape``, is given as that size.
        sizes: canonical name of every parameter -> its shape in the dense network, in model order: what the densities
            are shares of. All of them are prunable: with a channel go its biases and its norm's scale.

    Example:
        >>> model = nn.Linear(2, 3, bias=False)
        >>> shape = Shape({"weight": {0: torch.tensor([0, 2])}}, {"out_features": 2}, {"weight": (3, 2)})
        >>> shape
        Shape(4 of 6 kept, 1 tensors smaller)
        >>> shape.apply_(model)
        >>> model
        Linear(in_features=2, out_features=2, bias=False)
        >>> model.weight.shape
        torch.Size([2, 2])
    """

    indices: Mapping[str, Mapping[int, Tensor]]
    attributes: Mapping[str, int]
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Shape({self.kept} of {self.prunable} kept, {len(self.indices)} tensors smaller)"

    def __eq__(self, other: object) -> bool:
        return self.digest() == other.digest() if isinstance(other, Shape) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest())

    @staticmethod
    def dense(model: nn.Module) -> Shape:
        """Return the shape that leaves a network whole."""
        return Shape({}, {}, {name: tuple(parameter.shape) for name, parameter in parameters(model).items()})

    @property
    def prunable(self) -> int:
        """Number of entries of all parameters of the dense network."""
        return sum(size for _, size in self.per_tensor().values())

    @property
    def kept(self) -> int:
        """Number of entries of all parameters in this shape."""
        return sum(kept for kept, _ in self.per_tensor().values())

    @property
    def density(self) -> float:
        """Share of the dense network's parameters that is kept, in (0, 1]."""
        return self.kept / self.prunable if self.prunable else 1.0

    def per_tensor(self) -> dict[str, tuple[int, int]]:
        """Return name -> (kept, in the dense network) for every parameter."""
        return {name: (math.prod(self._now(name)), math.prod(size)) for name, size in self.sizes.items()}

    def emptied(self) -> tuple[str, ...]:
        """Return the names of tensors of which nothing is kept: none, as every axis keeps an index."""
        return ()

    def then(self, smaller: Shape) -> Shape:
        """Return the shape of the dense network that a shape found on a network in *this* shape amounts to."""
        indices = {name: dict(axes) for name, axes in self.indices.items()}
        for name, axes in smaller.indices.items():
            for axis, places in axes.items():
                now = indices.setdefault(name, {}).get(axis)
                indices[name][axis] = places if now is None else now[places]
        return Shape(indices, {**self.attributes, **smaller.attributes}, self.sizes)

    def select(self, tensors: Mapping[str, Tensor], since: Shape | None = None) -> dict[str, Tensor]:
        """Return the tensors (parameters, buffers, masks) in this shape; names it does not know pass through.

        Args:
            tensors: canonical name -> tensor as large as the dense network's, on any device, of any type.
            since: the shape that they have already; within it lies this one.

        Raises:
            CheckpointError: a tensor has another shape than it has in the dense network, or in ``since``.
        """
        indices = self._since(since)
        self._refuse_other(tensors, since)
        return {name: _select(name, tensor, indices.get(name, {})) for name, tensor in tensors.items()}

    def apply_(self, model: nn.Module, since: Shape | None = None) -> None:
        """Shrink the model in place: the same parameters under the same names, tied ones still tied.

        Gradients are dropped, as they have the old shape; an optimiser has to be made anew.

        Args:
            model: bare or wrapped, on any device.
            since: the shape that the model has already; within it lies this one.

        Raises:
            CheckpointError: the model is another network; it is unchanged then.
        """
        named, owners, indices = tensors_of(model), sizes_of(model), self._since(since)
        for names, known in ((indices, named), (self.attributes, owners)):
            for name in names:
                if name not in known:
                    raise CheckpointError(f"the shape holds {name!r}, which the model lacks; {nearest(name, known)}")
        self._refuse_other(named, since)
        smaller = {name: _select(name, named[name].detach(), axes) for name, axes in indices.items()}
        write_(named, owners, smaller, self.attributes)

    def digest(self) -> str:
        """Return 16 hex digits over everything, equal exactly where shapes are; for processes to compare."""
        digest = hashlib.sha256()
        for key, tensor in sorted(self.state_dict().items()):
            digest.update(f"{key}{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()[:16]

    def state_dict(self) -> dict[str, Tensor]:
        """Return int64 tensors that safetensors can store, under ``size/NAME``, ``index/AXIS/NAME`` and ``attribute/``.

        The first number of a ``size/`` is the parameter's place in model order, which safetensors itself forgets.
        """
        state = {f"size/{name}": torch.tensor([place, *size]) for place, (name, size) in enumerate(self.sizes.items())}
        for name, axes in self.indices.items():
            state |= {f"index/{axis}/{name}": indices for axis, indices in axes.items()}
        return state | {f"attribute/{path}": torch.tensor(value) for path, value in self.attributes.items()}

    @staticmethod
    def load(state: Mapping[str, Tensor]) -> Shape:
        """Return the shape that `state_dict` described.

        Raises:
            CheckpointError: the entries are not those of a shape.
        """
        sizes, attributes = {}, {}
        indices: dict[str, dict[int, Tensor]] = {}
        try:
            for key, tensor in state.items():
                kind, _, name = key.partition("/")
                if kind == "size":
                    sizes[name] = tensor.tolist()
                elif kind == "attribute":
                    attributes[name] = int(tensor)
                else:
                    axis, _, name = name.partition("/")
                    indices.setdefault(name, {})[int(axis)] = tensor
        except ValueError as cause:
            raise CheckpointError(
                f"{key!r} is no part of a structured cut: this is the cut of another pruner."
            ) from cause
        ordered = sorted(sizes, key=lambda name: sizes[name][0])
        return Shape(indices, attributes, {name: tuple(sizes[name][1:]) for name in ordered})

    def _now(self, name: str) -> tuple[int, ...]:
        axes = self.indices.get(name, {})
        sizes = self.sizes.get(name, ())
        return tuple(len(axes[axis]) if axis in axes else size for axis, size in enumerate(sizes))

    def _refuse_other(self, tensors: Mapping[str, Tensor], since: Shape | None) -> None:
        for name in self.sizes.keys() & tensors.keys():
            size = self.sizes[name] if since is None else since._now(name)
            if tuple(tensors[name].shape) != size:
                raise CheckpointError(
                    f"{name!r} has shape {tuple(tensors[name].shape)} and not {size}: the shape belongs to another "
                    "network, or is applied for the second time."
                )

    def _since(self, since: Shape | None) -> Mapping[str, Mapping[int, Tensor]]:
        """Return the indices as counted in the shape that something has already."""
        if since is None:
            return self.indices
        before = {(name, axis): now for name, axes in since.indices.items() for axis, now in axes.items()}
        counted: dict[str, dict[int, Tensor]] = {}
        for name, axes in self.indices.items():
            for axis, places in axes.items():
                now = before.pop((name, axis), None)
                counted.setdefault(name, {})[axis] = places if now is None else torch.searchsorted(now, places)
                if now is not None and not torch.isin(places, now).all():
                    before[name, axis] = now
        for name, axis in before:
            raise CheckpointError(f"axis {axis} of {name!r} would get back channels that were cut: shapes only shrink.")
        return counted


def _select(name: str, tensor: Tensor, axes: Mapping[int, Tensor]) -> Tensor:
    for axis, indices in axes.items():
        if axis >= tensor.dim() or int(indices[-1]) >= tensor.shape[axis]:
            raise CheckpointError(
                f"{name!r} has shape {tuple(tensor.shape)}, and index {int(indices[-1])} of axis {axis} is asked "
                "of it: the shape belongs to another network, or is applied for the second time."
            )
        tensor = tensor.index_select(axis, indices.to(tensor.device))
    return tensor
