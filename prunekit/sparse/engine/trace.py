"""Trace: the operators of one forward pass at one input shape, and which of their results are constants."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import TreeSpec, tree_flatten

from prunekit.sparse.modules import SparseConv2d, SparseLinear

WRITES = "it writes to its weights or to its input, which a plan would not"


@final
@dataclass(frozen=True)
class Traced:
    """What one forward pass computes.

    Args:
        graph: of ATen operators.
        constants: the values of nodes that never change.
        input: the node of the input.
        structure: how the outputs are nested.
    """

    graph: Graph
    constants: dict[Node, Tensor]
    input: Node
    structure: TreeSpec


def trace(model: nn.Module, example: Tensor) -> Traced:
    """Return the operators that the model runs on an input of this shape.

    Raises:
        ValueError: the model writes to its weights or to its input.
        Exception: whatever the tracer, or the model, raises: a branch on values, a type that no tracer takes.
    """
    model = _apart(model)
    state = {name: tensor.detach() for name, tensor in _tensors(model).items()}
    structures: list[TreeSpec] = []

    def run(state: dict[str, Tensor], x: Tensor) -> list[Any]:
        leaves, structure = tree_flatten(torch.func.functional_call(model, state, (x,)))
        structures.append(structure)
        return leaves

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = _make(run, state, example)
        if any(_writes(node) for node in traced.graph.nodes):
            # As a second try, since this also takes operators apart that torch has in one piece.
            traced = _make(torch.func.functionalize(run), state, example)
    if any(_writes(node) for node in traced.graph.nodes):
        raise ValueError(WRITES)
    *weights, entry = traced.graph.find_nodes(op="placeholder")
    constants = dict(zip(weights, state.values(), strict=True))
    for node in traced.graph.nodes:
        if node.op == "get_attr":
            constants[node] = getattr(traced, node.target)
        _fold(node, constants)
    return Traced(traced.graph, constants, entry, structures[-1])


def function(node: Node) -> Callable[..., Any]:
    """Return what a node calls."""
    assert callable(node.target)
    return node.target


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, each once: where others share them, the tracer's call sees to it."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _apart(model: nn.Module) -> nn.Module:
    """Return a copy that shares its tensors: what the tracer leaves in a module's attributes must not stay there.

    Its layers do what they are for: kernels in their place cannot be traced.
    """
    apart = copy.deepcopy(model, {id(tensor): tensor for tensor in _tensors(model).values()})
    for module in apart.modules():
        if isinstance(vars(module).get("forward"), SparseConv2d | SparseLinear):
            del module.__dict__["forward"]
    return apart


def _make(run: Callable[..., Any], state: dict[str, Tensor], example: Tensor) -> GraphModule:
    made: GraphModule = make_fx(run, tracing_mode="fake", _allow_non_fake_inputs=True)(state, example)
    for node in made.graph.find_nodes(op="call_function", target=torch.ops.aten.as_strided_.default):
        _drop_strides(node)
    return made


def _drop_strides(node: Node) -> None:
    """Take out what only changes the strides of dimensions of size 1, as pooling to one pixel does at its end."""
    (x, sizes, strides, *_), kwargs = node.args, node.kwargs
    assert isinstance(x, Node) and isinstance(sizes, list) and isinstance(strides, list)
    value: Tensor = x.meta["val"]
    steps = zip(sizes, strides, value.stride(), strict=True) if list(value.shape) == sizes else ()
    if steps and not kwargs and all(size == 1 or new == old for size, new, old in steps):
        node.replace_all_uses_with(x)
        node.graph.erase_node(node)


def _fold(node: Node, constants: dict[Node, Tensor]) -> None:
    """Compute what is made of constants only, and is not random."""
    operands = node.all_input_nodes
    if node.op != "call_function" or not operands or any(operand not in constants for operand in operands):
        return
    seeded = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    if isinstance(node.meta.get("val"), Tensor) and not seeded:
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), constants.__getitem__)
        with torch.no_grad():
            constants[node] = function(node)(*args, **kwargs)


def _writes(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
