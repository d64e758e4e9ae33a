"""Calls: operators of torch, each as a function that finds its operands by itself, in as little time as can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg


def call(
    node: Node, function: Callable[..., Any], constants: Mapping[Node, Tensor]
) -> Callable[[dict[Any, Any]], None]:
    """Return what computes a node's value from the values of others, and puts it beside them."""
    args, kwargs = map_arg((node.args, node.kwargs), lambda operand: constants.get(operand, operand))
    plain = all(not isinstance(arg, list | tuple | dict) for arg in (*args, *kwargs.values()))
    if plain and not any(isinstance(arg, Node) for arg in kwargs.values()):
        places = [(i, arg) for i, arg in enumerate(args) if isinstance(arg, Node)]
        template = list(args)

        def run(env: dict[Any, Any]) -> None:
            given = template.copy()
            for i, operand in places:
                given[i] = env[operand]
            env[node] = function(*given, **kwargs)

        return run

    def run_any(env: dict[Any, Any]) -> None:
        given, named = map_arg((args, kwargs), env.__getitem__)
        env[node] = function(*given, **named)

    return run_any
