"""Plans: a traced network as steps of torch and of the kernels, with the memory between them laid out once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, final

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_unflatten

from prunekit.sparse.engine.calls import call
from prunekit.sparse.engine.few import Buffer, Few
from prunekit.sparse.engine.found import Found, Gathered, aten
from prunekit.sparse.engine.maps import Kind, Map
from prunekit.sparse.engine.memory import pack
from prunekit.sparse.engine.program import Program
from prunekit.sparse.engine.stages import Chain, Needs
from prunekit.sparse.engine.steps import Env, Step, joined, last_uses, spans
from prunekit.sparse.engine.trace import Traced, function
from prunekit.sparse.engine.views import View, arrange
from prunekit.sparse.engine.work import Work

Order = Callable[[Tensor], Tensor]

WORK = "work"
"""Key of the memory that a call works in, beside the values of nodes."""

LENIENT: Mapping[Any, Any] = {
    aten.view.default: aten.reshape.default,
    aten._unsafe_view.default: aten.reshape.default,
}
"""Maps of ours lie in memory in another way than torch's, where looking at them in another shape may need a copy."""


@final
class Plan:
    """Computes what was traced, for inputs of the shape that it was traced with.

    Args:
        traced: the network.
        found: the maps in it.
        needed: of them and of its nodes.
        programs: for each chain that the kernels run.
        layers: what runs in place of single nodes.
    """

    def __init__(
        self,
        traced: Traced,
        found: Found,
        needed: Needs,
        programs: Mapping[Chain, Program],
        layers: Mapping[Node, Callable[..., Tensor]],
    ) -> None:
        self._traced, self._found, self._needed, self._layers = traced, found, needed, layers
        self._threads = torch.get_num_threads()
        self._of = {map: (chain, program) for chain, program in programs.items() for map in chain.maps}
        self._programs = list(programs.values())
        self._steps: list[Step] = []
        self._done: set[Any] = set()
        self._free: list[Work] = []
        for node in traced.graph.nodes:
            if node in needed.nodes and node.op == "call_function":
                self._node(node)
        (end,) = traced.graph.find_nodes(op="output")
        self._result, self._ends = end.args[0], end.all_input_nodes
        for node in self._ends:
            self._value(node)
        few = partial(Few, found.gathered, traced.constants, self._size)
        self._steps = joined(self._steps, self._ends, few, lambda few, wanted: partial(self._computed, few, wanted))
        self._few = [step.made for step in self._steps if isinstance(step.made, Few)]
        self._drops = last_uses(self._steps, self._ends)
        self._places, self._floats = pack(spans(self._steps, self._ends, self._size))

    def __call__(self, x: Tensor) -> Any:
        """Return what the network returns.

        Args:
            x: float32 on the CPU, of the shape that was traced.
        """
        try:
            work = self._free.pop()
        except IndexError:  # the first call, or others are not done yet
            work = Work(self._places, self._size, self._floats, self._programs, self._few, self._threads)
        env: Env = {self._traced.input: x.contiguous(), WORK: work}
        for step, drops in zip(self._steps, self._drops, strict=True):
            step.run(env)
            for thing in drops:
                del env[thing]
        leaves = [self._own(env, leaf) if isinstance(leaf, Node) else leaf for leaf in self._result]
        self._free.append(work)
        return tree_unflatten(leaves, self._traced.structure)

    @property
    def chains(self) -> list[Chain]:
        """What the kernels run."""
        return [step.made for step in self._steps if isinstance(step.made, Chain)]

    @property
    def operators(self) -> list[Node]:
        """What torch runs, and single sparse layers."""
        return [step.made for step in self._steps if isinstance(step.made, Node) and not self._ours(step.made)]

    def _own(self, env: Env, node: Node) -> Any:
        """Return an output that no later call writes to."""
        value = self._get(env, node)
        if isinstance(value, Tensor) and env[WORK].holds(value):
            return value.clone(memory_format=torch.contiguous_format)
        return value

    def _get(self, env: Env, node: Node) -> Any:
        return self._traced.constants[node] if node in self._traced.constants else env[node]

    def _add(self, step: Step) -> None:
        self._steps.append(step)
        self._done.update((step.made, *step.values))

    def _ours(self, node: Node) -> bool:
        """Return whether a node's value comes out of a map."""
        view = self._found.known(node)
        return node in self._found.gathered or (view is not None and view.map.kind != Kind.LOAD)

    def _value(self, node: Node) -> None:
        """See to it that a node's value is there."""
        if node in self._done or node in self._traced.constants or node.op == "placeholder":
            return
        gathered, view = self._found.gathered.get(node), self._found.known(node)
        if gathered is not None:
            self._map(gathered.sink)
            for factor in gathered.factors:
                self._value(factor.source)
            reads: list[Node | Map] = [gathered.sink, *(factor.source for factor in gathered.factors)]
            self._add(Step(node, partial(self._gathered, node, gathered), reads, values=[node], looks=True))
        elif view is not None and view.map.kind != Kind.LOAD:
            self._map(view.map)
            self._add(Step(view, partial(self._expressed, node, view), [view.map], values=[node], looks=True))
        else:
            self._node(node)

    def _node(self, node: Node) -> None:
        if node in self._done:
            return
        for operand in node.all_input_nodes:
            self._value(operand)
        what = self._layers.get(node) or LENIENT.get(node.target) or function(node)
        run = call(node, what, self._traced.constants)
        looks = node in self._found.views or _may_alias(node)
        self._add(Step(node, run, node.all_input_nodes, values=[node], looks=looks))

    def _map(self, map: Map) -> None:
        """See to it that a map is there, or what a sink gathers."""
        chain, program = self._of[map]
        if chain in self._done:
            return
        theirs = []
        for place, operand in enumerate(program.inputs):
            if operand.kind == Kind.LOAD and operand.source is not None:
                theirs.append((place, operand.source, operand.order))
            else:
                self._map(operand)
        matrices = len(program.tensors) - len(program.matrices)
        for place, other in enumerate(program.matrices, start=matrices):
            assert other.source is not None
            theirs.append((place, other.source, other.order))
        for _, source, _ in theirs:
            self._value(source)
        reads: list[Node | Map] = [*(source for _, source, _ in theirs), *program.inputs]
        self._add(Step(chain, partial(self._ran, program, theirs), reads, [*program.outputs, *program.sinks]))

    def _expressed(self, node: Node, view: View, env: Env) -> None:
        low, high = self._needed.stored[view.map]
        n, _, h, w = view.map.shape

        def make() -> Tensor:
            stored = env[WORK].maps[view.map].view(n, h, high - low, w).transpose(1, 2)
            return arrange(stored.narrow(1, view.start - low, view.channels), view.dims)

        env[node] = env[WORK].seen(node, make)

    def _gathered(self, node: Node, gathered: Gathered, env: Env) -> None:
        sink = gathered.sink

        def make() -> Tensor:
            # The first part of each image has the sum of all of its parts.
            parts = env[WORK].maps[sink].view(sink.shape[0], -1, sink.size)[:, 0]
            return (parts if sink.kind == Kind.GRAM else arrange(parts, gathered.dims)).reshape(gathered.shape)

        value = env[WORK].seen(node, make)
        for factor in gathered.factors:
            other = factor.order(self._get(env, factor.source))
            value = value / other if factor.divides else value * other
        env[node] = gathered.finish(value) if gathered.finish else value

    def _ran(self, program: Program, theirs: Sequence[tuple[int, Node, Order | None]], env: Env) -> None:
        tensors = []
        for place, source, order in theirs:
            value = self._get(env, source)
            tensors.append((place, (order(value) if order else value).contiguous()))
        env[WORK].run(program, tensors)

    def _computed(self, few: Few, wanted: Sequence[Node], env: Env) -> None:
        work: Work = env[WORK]
        work.compute(few, [(place, self._get(env, node).contiguous()) for place, node in few.theirs])
        for node in wanted:
            env[node] = work.seen(node, partial(work.look, few.values[node]))

    def _size(self, map: Map | Buffer) -> int:
        """Return the floats of a stored map, of a sink's parts, or of a result of few numbers."""
        if isinstance(map, Buffer):
            return map.size
        if map in self._needed.stored:
            low, high = self._needed.stored[map]
            return map.shape[0] * (high - low) * map.shape[2] * map.shape[3]
        return self._of[map][1].items * map.size


def _may_alias(node: Node) -> bool:
    """Return whether a node's value may be a view of what it reads, as all but new results of operators may."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or any(returned.alias_info for returned in schema.returns):
        return True
    return "view" in schema.name or "reshape" in schema.name or "contiguous" in schema.name
