"""Found: what is known of a traced network's nodes, and what a rule may say of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor
from torch.fx import Node

from prunekit.sparse.engine.maps import Kind, Map
from prunekit.sparse.engine.views import Dim, View, whole

aten = torch.ops.aten


def operands(node: Node) -> Any:
    """Return the positional arguments of a node, whose types only its operator knows."""
    return node.args


@final
@dataclass(frozen=True)
class Factor:
    """What a gathered value is multiplied with, or divided by: a node's value after ``order``, which broadcasts."""

    source: Node
    order: Callable[[Tensor], Tensor]
    divides: bool


@final
@dataclass(frozen=True)
class Gathered:
    """A node that holds what a sink gathered.

    Args:
        sink: SUM or GRAM.
        dims: of a SUM's value, in parts of n and c; a GRAM's is (n * heads, d, e).
        shape: of the value.
        finish: what is computed of it in the end.
        factors: what it is multiplied with, or divided by.
    """

    sink: Map
    dims: tuple[Dim, ...]
    shape: tuple[int, ...]
    finish: Callable[[Tensor], Tensor] | None = None
    factors: tuple[Factor, ...] = ()


@final
@dataclass(frozen=True)
class Statistic:
    """A node on the way to a norm over channels that is spelt out: it is computed only if others want it, too.

    Args:
        what: it is of each pixel: "mean", "centred" (less its mean), "square" (of that), "variance", "deviation" (the
            square root of the variance) or "inverse" (of that).
        of: the map.
        nodes: that it is made of.
        epsilon: that was added to the variance.
    """

    what: str
    of: View
    nodes: frozenset[Node]
    epsilon: float = 0.0


Result = View | list[View | None] | Gathered | Statistic | None


@final
@dataclass
class Found:
    """What is known of each node.

    Args:
        constants: tensors of nodes whose value never changes.
        views: of maps; a list where a node has several.
        gathered: what nodes hold of sinks.
        statistics: of norms that are spelt out.
        origin: the nodes that a map stands for.
    """

    constants: dict[Node, Tensor]
    views: dict[Node, View | list[View | None]] = field(default_factory=dict)
    gathered: dict[Node, Gathered] = field(default_factory=dict)
    statistics: dict[Node, Statistic] = field(default_factory=dict)
    origin: dict[Map, set[Node]] = field(default_factory=dict)

    def view(self, node: Any) -> View | None:
        """Return how a node looks at a map; a map of torch's making becomes one to load."""
        if not isinstance(node, Node) or node in self.constants:
            return None
        known = self.views.get(node)
        if isinstance(known, View):
            return known
        value = node.meta.get("val")
        if known is not None or not isinstance(value, Tensor) or value.dim() != 4 or value.dtype != torch.float32:
            return None
        if value.numel() < 1:
            return None
        n, c, h, w = value.shape
        view = View(Map(Kind.LOAD, (n, c, h, w), source=node), 0, whole((n, c, h, w), c))
        self.views[node] = view
        return view

    def known(self, node: Any) -> View | None:
        """Return how a node looks at a map that is known already."""
        view = self.views.get(node) if isinstance(node, Node) else None
        return view if isinstance(view, View) else None

    def standard(self, node: Any) -> View | None:
        """Return a node's view if its dimensions are n, c, h, w."""
        view = self.view(node)
        return view if view is not None and view.standard else None

    def statistic(self, node: Any, *what: str) -> Statistic | None:
        """Return what a node holds on the way to a norm, if it is one of these."""
        known = self.statistics.get(node) if isinstance(node, Node) else None
        return known if known is not None and known.what in what else None

    def new(self, like: View, kind: Kind, operands: Sequence[View], channels: int | None = None, **rest: Any) -> View:
        """Return a view, in the order of ``like``, of a new map."""
        n, _, h, w = like.map.shape
        shape = (n, channels or like.channels, h, w)
        made = Map(kind, shape, tuple((view.map, view.start) for view in operands), **rest)
        return View(made, 0, like.dims)


Rule = Callable[[Found, Node], Result]
