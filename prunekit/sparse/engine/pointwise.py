"""Pointwise: rules for activations, and for arithmetic with two maps or with a map and a number for each channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.fx import Node

from prunekit.sparse.engine.found import Found, Result, Rule, aten, operands
from prunekit.sparse.engine.maps import Kind, Mode
from prunekit.sparse.engine.norms import spelt_out, square
from prunekit.sparse.engine.views import Dim, View, broadcasts, spread


def activation(mode: Mode) -> Rule:
    """Return the rule of an activation."""

    def rule(found: Found, node: Node) -> View | None:
        view = found.view(operands(node)[0])
        if view is None or not view.adjacent or node.kwargs.get("approximate", "none") != "none":
            return None
        return found.new(view, Kind.ACTIVATE, [view], mode=mode)

    return rule


def power(found: Found, node: Node) -> Result:
    """Squares."""
    x, exponent = operands(node)
    if exponent != 2:
        return None
    statistic, view = square(found, node), found.known(x)
    if statistic is not None or view is None or not view.adjacent:
        return statistic
    return found.new(view, Kind.GATE, [view, view])


def arithmetic(found: Found, node: Node) -> Result:
    """Two maps, or a map and numbers."""
    if (result := spelt_out(found, node)) is not None:
        return result
    a, b = operands(node)[:2]
    left, right = found.known(a), found.known(b)
    if left is not None and right is not None and left.dims == right.dims:
        return _both(found, node, left, right)
    if left is not None and left.adjacent:
        return _each(found, node, left, b) or _loaded(found, node, left, b, turned=False)
    if right is not None and right.adjacent:
        return _turned(found, node, a, right) or _loaded(found, node, right, a, turned=True)
    return None


def _loaded(found: Found, node: Node, view: View, other: Any, *, turned: bool) -> View | None:
    """A map, and one that torch made."""
    if not isinstance(other, Node) or not isinstance(other.meta["val"], Tensor):
        return None
    if tuple(other.meta["val"].shape) != view.shape() or (loaded := found.view(other)) is None:
        return None
    if loaded.dims != view.dims:
        return None
    return _both(found, node, *((loaded, view) if turned else (view, loaded)))


def _both(found: Found, node: Node, left: View, right: View) -> View | None:
    kinds: dict[Any, Kind] = {aten.add.Tensor: Kind.ADD, aten.mul.Tensor: Kind.GATE}
    kind = kinds.get(node.target)
    if kind is None or not left.adjacent or not right.adjacent or node.kwargs.get("alpha", 1) != 1:
        return None
    return found.new(left, kind, [left, right])


def _each(found: Found, node: Node, view: View, other: Any) -> View | None:
    """A map, and numbers that are the same for all pixels."""
    numbers_c = _numbers(found, other, view)
    if numbers_c is None:
        return _scaled(found, node, view, other)
    if node.target in (aten.add.Tensor, aten.sub.Tensor):
        return _affine(found, view, None, numbers_c * _alpha(node))
    return _affine(found, view, numbers_c.reciprocal() if node.target is aten.div.Tensor else numbers_c, None)


def _turned(found: Found, node: Node, other: Any, view: View) -> View | None:
    """Numbers that are the same for all pixels, and a map."""
    if node.target is aten.mul.Tensor:
        return _each(found, node, view, other)
    numbers_c = _numbers(found, other, view)
    if numbers_c is None or node.target is aten.div.Tensor:
        return None
    return _affine(found, view, torch.full_like(numbers_c, _alpha(node)), numbers_c)


def _alpha(node: Node) -> Any:
    """Return what the second operand of a sum or a difference is multiplied with."""
    alpha: Any = node.kwargs.get("alpha", 1)
    return -alpha if node.target is aten.sub.Tensor else alpha


def _affine(found: Found, view: View, scale_c: Tensor | None, shift_c: Tensor | None) -> View:
    weight, bias = (None if part is None else part.float() for part in (scale_c, shift_c))
    return found.new(view, Kind.AFFINE, [view], weight=weight, bias=bias)


def _numbers(found: Found, other: Any, view: View) -> Tensor | None:
    """Return constants as one for each channel of a view."""
    if isinstance(other, int | float) and not isinstance(other, bool):
        return torch.full((view.channels,), other, dtype=torch.float64)
    constant = found.constants.get(other) if isinstance(other, Node) else None
    if constant is None or constant.is_complex() or not broadcasts(constant.shape, view.dims, "c"):
        return None
    return spread(constant.double(), view.dims, "c")


def _scaled(found: Found, node: Node, view: View, other: Any) -> View | None:
    """A map times, or divided by, what torch makes for each channel."""
    quotient = node.target is aten.div.Tensor
    if not isinstance(other, Node) or not (quotient or node.target is aten.mul.Tensor):
        return None
    while other.target is aten.expand.default:
        other = operands(other)[0]
    value = other.meta.get("val")
    if other in found.constants or not isinstance(value, Tensor) or value.dtype != torch.float32:
        return None
    if not broadcasts(value.shape, view.dims, "nc"):
        return None
    return found.new(view, Kind.AFFINE, [view], source=other, order=Scales(view.dims, view.map.shape[0], quotient))


@final
@dataclass(frozen=True)
class Scales:
    """Makes of a value of torch's the scales of a map, as (n, c).

    Args:
        dims: of the view that is scaled.
        images: n.
        quotient: whether the map is divided by the value.
    """

    dims: tuple[Dim, ...]
    images: int
    quotient: bool

    def __call__(self, value: Tensor) -> Tensor:
        """Return the scales."""
        return self.spread(value).reciprocal() if self.quotient else self.spread(value)

    def spread(self, value: Tensor) -> Tensor:
        """Return the value as (n, c)."""
        return spread(value, self.dims, "nc").expand(self.images, -1)
