"""Norms: rules for norms over channels, in one operator or spelt out, and for those of batches."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from prunekit.sparse.engine.found import Found, Result, Statistic, aten, operands
from prunekit.sparse.engine.maps import Kind
from prunekit.sparse.engine.views import Atom, View, axes


def over_channels(view: View, dims: Any) -> bool:
    """Return whether these dimensions are all the channels that the view looks at, and nothing else."""
    over = [view.dims[dim] for dim in dims]
    rest = [dim for i, dim in enumerate(view.dims) if i not in {d % len(view.dims) for d in dims}]
    return view.adjacent and over == [(Atom("c", 1, view.channels),)] and "c" not in axes(rest)


def layer_norm(found: Found, node: Node) -> Result:
    """One operator; of what it returns, only the map is one."""
    x, shape, weight, bias, epsilon = operands(node)
    view = found.view(x)
    if view is None or len(shape) != 1 or not over_channels(view, [-1]):
        return None
    if any(part is not None and part not in found.constants for part in (weight, bias)):
        return None
    weight_c, bias_c = found.constants.get(weight), found.constants.get(bias)
    return [found.new(view, Kind.NORM, [view], epsilon=epsilon, weight=weight_c, bias=bias_c), None, None]


def batch_norm(found: Found, node: Node) -> Result:
    """In evaluation, a scale and a shift of each channel."""
    x, weight, bias, mean, variance, *training, _, epsilon = operands(node)
    view = found.standard(x)
    if view is None or any(training) or mean is None or variance is None:
        return None
    if any(part is not None and part not in found.constants for part in (weight, bias, mean, variance)):
        return None
    mean_c, variance_c = found.constants[mean], found.constants[variance]
    scale_c = (variance_c.double() + epsilon).rsqrt()
    if weight is not None:
        scale_c = scale_c * found.constants[weight]
    shift_c = -mean_c.double() * scale_c
    if bias is not None:
        shift_c = shift_c + found.constants[bias]
    return [found.new(view, Kind.AFFINE, [view], weight=scale_c.float(), bias=shift_c.float()), None, None]


def mean(found: Found, node: Node) -> Statistic | None:
    """Over channels: of a map, or of the squares that are its variance."""
    x, over, keep = (*operands(node), False)[:3]
    squares = found.statistic(x, "square")
    view = squares.of if squares else found.view(x)
    if view is None or not over or not keep or not over_channels(view, over):
        return None
    if squares:
        return Statistic("variance", view, squares.nodes | {node})
    return Statistic("mean", view, frozenset({node}))


def variance(found: Found, node: Node) -> Statistic | None:
    """Over channels, in one operator."""
    x, over = (*operands(node), None)[:2]
    view = found.view(x)
    biased = node.kwargs.get("correction", 1) == 0 and node.kwargs.get("keepdim", False)
    if view is None or not over or not biased or not over_channels(view, over):
        return None
    return Statistic("variance", view, frozenset({node}))


def root(found: Found, node: Node) -> Statistic | None:
    """The square root of a variance, or one divided by it."""
    known = found.statistic(operands(node)[0], "variance")
    if known is None:
        return None
    what = "inverse" if node.target is aten.rsqrt.default else "deviation"
    return Statistic(what, known.of, known.nodes | {node}, known.epsilon)


def spelt_out(found: Found, node: Node) -> View | Statistic | None:
    """Sums, differences, products and quotients of what leads to a norm."""
    a, b = operands(node)[:2]
    if node.kwargs.get("alpha", 1) != 1:
        return None
    if node.target is aten.add.Tensor:
        known = found.statistic(a, "variance")
        if known is None or not isinstance(b, int | float):
            return None
        return Statistic("variance", known.of, known.nodes | {node}, known.epsilon + b)
    if node.target is aten.sub.Tensor:
        known = found.statistic(b, "mean")
        same = known is not None and known.of == found.known(a)
        return Statistic("centred", known.of, known.nodes | {node}) if known is not None and same else None
    return _normed(found, node, a, b)


def square(found: Found, node: Node) -> Statistic | None:
    """A power of two, or a product with itself, of what has no mean any more."""
    known = found.statistic(operands(node)[0], "centred")
    return None if known is None else Statistic("square", known.of, known.nodes | {node})


def _normed(found: Found, node: Node, a: Any, b: Any) -> View | Statistic | None:
    product = node.target is aten.mul.Tensor
    if product and a is b:
        return square(found, node)
    if product and found.statistic(b, "centred"):
        a, b = b, a
    centred, spread = found.statistic(a, "centred"), found.statistic(b, "inverse" if product else "deviation")
    if centred is None or spread is None or centred.of != spread.of:
        return None
    made = found.new(centred.of, Kind.NORM, [centred.of], epsilon=spread.epsilon)
    found.origin[made.map] = {*centred.nodes, *spread.nodes, node}
    return made
