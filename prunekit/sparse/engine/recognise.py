"""Recognise: walk through a traced network and find the maps in it; what no rule knows stays an operator of torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Graph, Node

from prunekit.sparse.engine.found import Found, Gathered, Statistic
from prunekit.sparse.engine.rules import RULES
from prunekit.sparse.engine.views import View, normal


def recognise(graph: Graph, constants: dict[Node, Tensor], torches: frozenset[Node] = frozenset()) -> Found:
    """Return what the graph's nodes are.

    Args:
        graph: of ATen operators.
        constants: nodes whose value never changes.
        torches: stay with torch although a rule may know them.
    """
    found = Found(constants)
    for node in graph.nodes:
        if node.op == "call_function" and node not in constants and node not in torches and _single(node):
            _note(found, node)
    return found


def _single(node: Node) -> bool:
    """Return whether a node makes no tensors other than of float32, the only ones that the kernels know."""
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else [value]
    return all(each.dtype == torch.float32 for each in values if isinstance(each, Tensor))


def _note(found: Found, node: Node) -> None:
    rule = RULES.get(node.target)
    result = rule(found, node) if rule else None
    if isinstance(result, View):
        found.views[node] = normal(result)
        found.origin.setdefault(result.map, {node})
    elif isinstance(result, Gathered):
        found.gathered[node] = result
        found.origin.setdefault(result.sink, {node})
    elif isinstance(result, Statistic):
        found.statistics[node] = result
    elif result is not None:
        found.views[node] = [None if part is None else normal(part) for part in result]
        for part in result:
            if part is not None:
                found.origin.setdefault(part.map, {node})
