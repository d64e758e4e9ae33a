"""Trace: the operators of one forward pass at one input shape, and which of their results are constants."""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from prunekit.environment import Holes
from prunekit.sparse.modules import SparseConv2d, SparseLinear

BRANCHES = "it looks at the values of a tensor, and might do something else next time"
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

    It runs once or twice, on noise: what depends on an input's values, unnoticed, gives something else on another one.

    Raises:
        ValueError: the model writes to its weights or to its input, or looks at the values of a tensor.
        Exception: whatever the model raises.
    """
    model = _apart(model)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = _recorded(model, example)
        if any(_writes(node) for node in traced.graph.nodes):
            # As a second try, since this also takes operators apart that torch has in one piece.
            traced = _recorded(torch.func.functionalize(model), example)
        if any(_writes(node) for node in traced.graph.nodes):
            raise ValueError(WRITES)
        for node in traced.graph.nodes:
            _fold(node, traced.constants)
    return traced


def _recorded(model: Callable[[Tensor], Any], example: Tensor) -> Traced:
    x = torch.rand_like(example)
    with _Recorder(x) as recorder:
        leaves, structure = tree_flatten(model(x))
    ends = [recorder.node(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    recorder.graph.output(ends)
    for node in recorder.graph.find_nodes(op="call_function", target=torch.ops.aten.as_strided_.default):
        _drop_strides(node)
    return Traced(recorder.graph, recorder.constants, recorder.input, structure)


@final
class _Recorder(TorchDispatchMode):
    """Writes down the operators that run, and of their results only what they look like.

    ``torch.fx`` has a tracer for this, which loads more code than most networks have weights: 160 MB.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = Graph()
        self.constants: dict[Node, Tensor] = {}
        self._nodes = WeakIdKeyDictionary()
        self._holes = Holes()
        self.input = self._there(x)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False, which spares loading torch's compiler: nothing here is ever compiled."""
        return False

    def node(self, tensor: Tensor) -> Node:
        """Return where a tensor came from; one that was there before is a constant."""
        if tensor not in self._nodes:
            self.constants[self._there(tensor)] = tensor.detach()
        node: Node = self._nodes[tensor]
        return node

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}.intersection(func.tags):
            raise ValueError(BRANCHES)
        made = func(*args, **(kwargs or {}))
        given, named = tree_map_only(Tensor, self.node, (tuple(args), dict(kwargs or {})))
        node = self.graph.call_function(func, given, named)
        node.meta["val"] = tree_map_only(Tensor, _blank, made)
        self._note(made, node)
        return made

    def _there(self, tensor: Tensor) -> Node:
        node = self.graph.placeholder(f"tensor_{len(self._nodes)}")
        node.meta["val"] = _blank(tensor)
        self._nodes[tensor] = node
        return node

    def _note(self, made: Any, node: Node) -> None:
        if isinstance(made, Tensor):
            self._nodes[made] = node
            self._holes.add(made.nbytes)
        elif isinstance(made, list | tuple):
            for i, part in enumerate(made):
                if isinstance(part, Tensor):
                    item = self.graph.call_function(operator.getitem, (node, i))
                    item.meta["val"] = _blank(part)
                    self._nodes[part] = item


def _blank(tensor: Tensor) -> Tensor:
    """Return a tensor that looks the same, without its numbers."""
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="meta")


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
