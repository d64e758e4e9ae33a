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
from prunekit.sparse.engine.found import Found, Gathered, aten
from prunekit.sparse.engine.maps import Kind, Map
from prunekit.sparse.engine.memory import Span, pack
from prunekit.sparse.engine.program import Program
from prunekit.sparse.engine.stages import Chain, Needs
from prunekit.sparse.engine.trace import Traced, function
from prunekit.sparse.engine.views import View, arrange
from prunekit.sparse.engine.work import Work

Env = dict[Any, Any]
Order = Callable[[Tensor], Tensor]
Step = Callable[[Env], None]

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
        self._steps: list[tuple[Step, Any]] = []
        self._done: set[Any] = set()
        self._free: list[Work] = []
        for node in traced.graph.nodes:
            if node in needed.nodes and node.op == "call_function":
                self._node(node)
        (end,) = traced.graph.find_nodes(op="output")
        self._result, self._ends = end.args[0], end.all_input_nodes
        for node in self._ends:
            self._value(node)
        self._drops = self._last_uses()
        self._places, self._floats = pack(self._spans())

    def __call__(self, x: Tensor) -> Any:
        """Return what the network returns.

        Args:
            x: float32 on the CPU, of the shape that was traced.
        """
        try:
            work = self._free.pop()
        except IndexError:  # the first call, or others are not done yet
            work = Work(self._places, self._size, self._floats, self._programs, self._threads)
        env: Env = {self._traced.input: x.contiguous(), WORK: work}
        for (step, _), drops in zip(self._steps, self._drops, strict=True):
            step(env)
            for thing in drops:
                del env[thing]
        leaves = [self._own(env, leaf) if isinstance(leaf, Node) else leaf for leaf in self._result]
        self._free.append(work)
        return tree_unflatten(leaves, self._traced.structure)

    @property
    def chains(self) -> list[Chain]:
        """What the kernels run."""
        return [made for _, made in self._steps if isinstance(made, Chain)]

    @property
    def operators(self) -> list[Node]:
        """What torch runs, and single sparse layers."""
        return [made for _, made in self._steps if isinstance(made, Node) and not self._ours(made)]

    def _own(self, env: Env, node: Node) -> Any:
        """Return an output that no later call writes to."""
        value = self._get(env, node)
        if isinstance(value, Tensor) and env[WORK].holds(value):
            return value.clone(memory_format=torch.contiguous_format)
        return value

    def _get(self, env: Env, node: Node) -> Any:
        return self._traced.constants[node] if node in self._traced.constants else env[node]

    def _add(self, made: Any, step: Step) -> None:
        self._steps.append((step, made))
        self._done.add(made)

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
            self._add(node, partial(self._gathered, node, gathered))
        elif view is not None and view.map.kind != Kind.LOAD:
            self._map(view.map)
            self._add(node, partial(self._expressed, node, view))
        else:
            self._node(node)

    def _node(self, node: Node) -> None:
        if node in self._done:
            return
        for operand in node.all_input_nodes:
            self._value(operand)
        what = self._layers.get(node) or LENIENT.get(node.target) or function(node)
        self._add(node, call(node, what, self._traced.constants))

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
        self._add(chain, partial(self._ran, program, theirs))

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
            value = value * factor.order(self._get(env, factor.source))
        env[node] = gathered.finish(value) if gathered.finish else value

    def _ran(self, program: Program, theirs: Sequence[tuple[int, Node, Order | None]], env: Env) -> None:
        tensors = []
        for place, source, order in theirs:
            value = self._get(env, source)
            tensors.append((place, (order(value) if order else value).contiguous()))
        env[WORK].run(program, tensors)

    def _reads(self, made: Any) -> list[Any]:
        """Return the nodes, and the maps in memory, that a step reads."""
        if isinstance(made, Chain):
            program = self._of[made.maps[0]][1]
            loads = [map.source for map in program.inputs if map.kind == Kind.LOAD]
            return [*loads, *(map.source for map in program.matrices), *program.inputs]
        if made in self._found.gathered:
            gathered = self._found.gathered[made]
            return [gathered.sink, *(factor.source for factor in gathered.factors)]
        view = self._found.known(made)
        if view is not None and view.map.kind != Kind.LOAD:
            return [view.map]
        return list(made.all_input_nodes)

    def _last_uses(self) -> list[list[Node]]:
        """Return the nodes whose values may be dropped after each step."""
        last = {made: i for i, (_, made) in enumerate(self._steps) if isinstance(made, Node)}
        for i, (_, made) in enumerate(self._steps):
            last.update((thing, i) for thing in self._reads(made) if thing in last)
        drops: list[list[Node]] = [[] for _ in self._steps]
        for node, i in last.items():
            if node not in self._ends:
                drops[i].append(node)
        return drops

    def _spans(self) -> list[Span[Map]]:
        """Return when each stored map and each sink is there, as long as anything that may be a view of it is."""
        first: dict[Map, int] = {}
        last: dict[Map, int] = {}
        roots: dict[Any, set[Map]] = {}
        for i, (_, made) in enumerate(self._steps):
            reads = self._reads(made)
            maps = {thing for thing in reads if isinstance(thing, Map) and thing.kind != Kind.LOAD}
            maps = maps.union(*(roots.get(thing, ()) for thing in reads))
            last.update(dict.fromkeys(maps, i))
            if isinstance(made, Chain):
                program = self._of[made.maps[0]][1]
                for map in (*program.outputs, *program.sinks):
                    first[map] = last[map] = i
            elif made in self._found.gathered or made in self._found.views or _may_alias(made):
                roots[made] = maps
        for node in self._ends:
            last.update(dict.fromkeys(roots.get(node, ()), len(self._steps)))
        return [Span(map, begin, last[map], self._size(map)) for map, begin in first.items()]

    def _size(self, map: Map) -> int:
        """Return the floats of a stored map or of a sink's parts."""
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
