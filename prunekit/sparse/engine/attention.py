"""Attention: rules for what is gathered of maps over all pixels, and for products of maps and matrices."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.fx import Node

from prunekit.sparse.engine.found import Factor, Found, Gathered, Result, aten, operands
from prunekit.sparse.engine.maps import Kind, Map
from prunekit.sparse.engine.norms import mean as mean_over_channels
from prunekit.sparse.engine.pointwise import Scales
from prunekit.sparse.engine.views import Atom, Dim, View, axes


def mean(found: Found, node: Node) -> Result:
    """Over all pixels, or over channels."""
    return total(found, node) or mean_over_channels(found, node)


def total(found: Found, node: Node) -> Gathered | None:
    """A sum, a mean or a Euclidean norm over all pixels."""
    norm = node.target is aten.linalg_vector_norm.default
    x, order, over = (*operands(node), None, None)[:3] if norm else (operands(node)[0], 2, operands(node)[1])
    view = found.view(x)
    if view is None or not over or order != 2 or not view.adjacent:
        return None
    dims = [view.dims[dim] for dim in over]
    rest = tuple(dim for i, dim in enumerate(view.dims) if i not in {d % len(view.dims) for d in over})
    n, _, h, w = view.map.shape
    if axes(dims) - {"h", "w"} or axes(rest) & {"h", "w"}:
        return None
    read, squares = _squared(view) if not norm else ((view.map, view.start), True)
    sink = Map(Kind.SUM, (n, view.channels, h, w), (read,), mode=int(squares))
    finish: Callable[[Tensor], Tensor] | None = torch.sqrt if norm else None
    if node.target is aten.mean.dim:
        finish = partial(torch.mul, other=1 / (h * w))
    return Gathered(sink, rest, tuple(node.meta["val"].shape), finish)


def _squared(view: View) -> tuple[tuple[Map, int], bool]:
    """Return what a sum of this view reads, and whether it squares it."""
    made = view.map
    if made.kind == Kind.GATE and made.operands[0] == made.operands[1]:
        below, start = made.operands[0]
        return (below, start + view.start), True
    return (made, view.start), False


def product(found: Found, node: Node) -> View | Gathered | None:
    """The products of attention across channels: q k^T over all pixels, and a matrix times the channels of a head."""
    a, b = operands(node)
    left, right = found.known(a), found.known(b)
    if left is not None and right is not None and (gathered := _gram(found, left, right, node)):
        return gathered
    if right is not None and right.dims[2] == _pixels(right):
        return _applied(found, right, a, turned=False)
    if left is not None and left.dims[1] == _pixels(left):
        return _applied(found, left, b, turned=True)
    return None


def _pixels(view: View) -> Dim:
    _, _, h, w = view.map.shape
    return tuple(atom for atom in (Atom("h", 1, h), Atom("w", 1, w)) if atom.size > 1)


def _gram(found: Found, q: View, k: View, node: Node) -> Gathered | None:
    (n, _, h, w), pixels = q.map.shape, _pixels(q)
    if not pixels or not q.dims[2] == k.dims[1] == pixels or (n, h, w) != (k.map.shape[0], *k.map.shape[2:]):
        return None
    d, e = math.prod(atom.size for atom in q.dims[1]), math.prod(atom.size for atom in k.dims[2])
    if not _headed(q, 1, d) or not _headed(k, 2, e):
        return None
    heads, factors, origin, read = q.channels // d, [], {node}, []
    for view, shape in ((q, (n * heads, d, 1)), (k, (n * heads, 1, e))):
        below, factor = _without_scale(view, shape)
        read.append(below)
        if factor is not None:
            factors.append(factor)
            origin |= found.origin[view.map]
    sink = Map(Kind.GRAM, (n, q.channels, h, w), tuple(read), mode=heads, inputs=e)
    found.origin[sink] = origin
    return Gathered(sink, (), tuple(node.meta["val"].shape), factors=tuple(factors))


def _without_scale(view: View, shape: tuple[int, int, int]) -> tuple[tuple[Map, int], Factor | None]:
    """Return a factor of q or k's channels, which may as well come after the product: then both wait for nothing."""
    made = view.map
    if made.kind != Kind.AFFINE or made.source is None or not isinstance(made.order, Scales):
        return (made, view.start), None
    if made.bias is not None or view.channels != made.channels:
        return (made, view.start), None
    order = partial(_shaped, order=made.order.spread, shape=shape)
    return made.operands[0], Factor(made.source, order, divides=made.order.quotient)


def _shaped(value: Tensor, order: Callable[[Tensor], Tensor], shape: tuple[int, int, int]) -> Tensor:
    return order(value).reshape(shape)


def _headed(view: View, dim: int, size: int) -> bool:
    """Return whether dimension 0 is (n, heads), and ``dim`` the channels of one head."""
    images, heads = view.map.shape[0], view.channels // size
    inner, outer = Atom("c", 1, size), (Atom("n", 1, images), Atom("c", size, heads))
    return view.adjacent and view.dims[dim] == _large(inner) and view.dims[0] == _large(*outer)


def _large(*atoms: Atom) -> Dim:
    return tuple(atom for atom in atoms if atom.size > 1)


def _applied(found: Found, view: View, matrix: Node, *, turned: bool) -> View | None:
    """A matrix of each head times its channels; turned: pixels times channels, times a matrix."""
    inner = 2 if turned else 1
    e = math.prod(atom.size for atom in view.dims[inner])
    value = matrix.meta["val"]
    if not _headed(view, inner, e) or not _pixels(view) or value.dtype != torch.float32:
        return None
    images, heads, d = view.map.shape[0], view.channels // e, value.shape[inner]
    order = partial(torch.transpose, dim0=1, dim1=2) if turned else None
    made = found.new(view, Kind.DENSE, [view], heads * d, mode=heads, inputs=e, source=matrix, order=order)
    outer, rows = _large(Atom("n", 1, images), Atom("c", d, heads)), _large(Atom("c", 1, d))
    return View(made.map, 0, (outer, view.dims[1], rows) if turned else (outer, rows, view.dims[2]))
