"""Views: how a tensor of a traced network looks at a map, whatever it was permuted, flattened and split into.

A map has axes n, c, h, w. Each dimension of a view is a tuple of atoms, and an atom is part of an axis: ``size`` steps
of ``stride``. Networks spell the same operator in many memory layouts; as views they are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, final

from torch import Tensor

from prunekit.sparse.engine.maps import Map


class Atom(NamedTuple):
    """Part of an axis of a map: index = stride * i, for i below size."""

    axis: str
    stride: int
    size: int


Dim = tuple[Atom, ...]


@final
@dataclass(frozen=True)
class View:
    """A tensor that holds what ``map`` holds from channel ``start`` on, in the order of ``dims``."""

    map: Map
    start: int
    dims: tuple[Dim, ...]

    @property
    def channels(self) -> int:
        """How many channels it looks at."""
        return math.prod(atom.size for dim in self.dims for atom in dim if atom.axis == "c")

    @property
    def adjacent(self) -> bool:
        """Whether these channels are neighbours, each there once."""
        stride = 1
        for atom in sorted(atom for dim in self.dims for atom in dim if atom.axis == "c"):
            if atom.stride != stride:
                return False
            stride *= atom.size
        return True

    @property
    def standard(self) -> bool:
        """Whether the dimensions are n, c, h, w as they are in the map."""
        return self.adjacent and self.dims == whole(self.map.shape, self.channels)

    def shape(self) -> tuple[int, ...]:
        """Return the sizes of the dimensions."""
        return tuple(math.prod(atom.size for atom in dim) for dim in self.dims)


def whole(shape: tuple[int, ...], channels: int) -> tuple[Dim, ...]:
    """Return the dimensions of a map; those of size 1 have no atoms."""
    sizes = zip("nchw", (shape[0], channels, *shape[2:]), strict=True)
    return tuple((Atom(axis, 1, size),) if size > 1 else () for axis, size in sizes)


def arrange(x: Tensor, dims: Sequence[Dim]) -> Tensor:
    """Return a tensor whose dimensions are n, c, ... in the order of ``dims``; axes that ``dims`` has not are 1."""
    atoms = [atom for dim in dims for atom in dim]
    natural = sorted(atoms, key=lambda atom: ("nchw".index(atom.axis), -atom.stride))
    split = x.reshape([atom.size for atom in natural])
    ordered = split.permute([natural.index(atom) for atom in atoms])
    return ordered.reshape([math.prod(atom.size for atom in dim) for dim in dims])


def permute(view: View, order: Sequence[int]) -> View:
    """Return the view with its dimensions in another order."""
    return replace(view, dims=tuple(view.dims[i] for i in order))


def reshape(view: View, sizes: Sequence[int]) -> View | None:
    """Return the view with its elements counted off in other dimensions; None where an atom does not divide."""
    flat, dims = _merged([atom for dim in view.dims for atom in dim]), []
    for size in sizes:
        dim: list[Atom] = []
        while size > 1:
            if not flat:
                return None
            atom = flat.pop(0)
            if atom.size > size:
                if atom.size % size:
                    return None
                inner = atom.size // size
                flat.insert(0, atom._replace(size=inner))
                atom = Atom(atom.axis, atom.stride * inner, size)
            elif size % atom.size:
                return None
            dim.append(atom)
            size //= atom.size
        dims.append(tuple(dim))
    return replace(view, dims=tuple(dims))


def narrow(view: View, dim: int, start: int, length: int) -> View | None:
    """Return a part of the view along a dimension of channels; None along any other, or if no neighbours are left."""
    atoms = _merged(view.dims[dim])
    if start == 0 and length == math.prod(atom.size for atom in atoms):
        return view
    if len(atoms) != 1 or atoms[0].axis != "c":
        return None
    part = (atoms[0]._replace(size=length),) if length > 1 else ()
    first = view.start + start * atoms[0].stride
    narrowed = View(view.map, first, (*view.dims[:dim], part, *view.dims[dim + 1 :]))
    return narrowed if narrowed.adjacent else None


def _merged(atoms: Sequence[Atom]) -> list[Atom]:
    """Return the atoms with those joined that count on from one another."""
    out: list[Atom] = []
    for atom in atoms:
        if out and out[-1].axis == atom.axis and out[-1].stride == atom.stride * atom.size:
            out[-1] = Atom(atom.axis, atom.stride, out[-1].size * atom.size)
        else:
            out.append(atom)
    return out


def normal(view: View) -> View:
    """Return the view with atoms joined where they can be, so that equal views compare equal."""
    return replace(view, dims=tuple(tuple(_merged(dim)) for dim in view.dims))


def axes(dims: Sequence[Dim]) -> set[str]:
    """Return the axes that these dimensions have a part of."""
    return {atom.axis for dim in dims for atom in dim}


def broadcasts(shape: Sequence[int], dims: Sequence[Dim], kept: str) -> bool:
    """Return whether a tensor of this shape, broadcast to ``dims``, changes along the axes in ``kept`` only."""
    padded = [1] * (len(dims) - len(shape)) + list(shape)
    if len(padded) != len(dims):
        return False
    sizes = zip(padded, dims, strict=True)
    return all(
        size == 1 or (size == math.prod(atom.size for atom in dim) and axes([dim]) <= set(kept)) for size, dim in sizes
    )


def spread(x: Tensor, dims: Sequence[Dim], kept: str) -> Tensor:
    """Return a tensor that `broadcasts` with its axes in the order of a map's: the inverse of `arrange`."""
    atoms = [[atom for atom in dim if atom.axis in kept] for dim in dims]
    flat = [atom for dim in atoms for atom in dim]
    natural = sorted(flat, key=lambda atom: ("nchw".index(atom.axis), -atom.stride))
    full = x.expand([math.prod(atom.size for atom in dim) for dim in atoms])
    split = full.reshape([atom.size for atom in flat])
    ordered = split.permute([flat.index(atom) for atom in natural])
    return ordered.reshape([math.prod(atom.size for atom in natural if atom.axis == axis) for axis in kept])
