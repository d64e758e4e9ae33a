"""Steps: what a plan does one after the other, and for how long what each leaves behind must last."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, final

from torch.fx import Node

from prunekit.sparse.engine.few import Buffer, Few
from prunekit.sparse.engine.maps import Kind, Map
from prunekit.sparse.engine.memory import Span

Env = dict[Any, Any]


@final
@dataclass(eq=False)
class Step:
    """One step.

    Args:
        made: a chain, operators on few numbers, a view of a map, or a node.
        run: does it, with the values of nodes at hand.
        reads: nodes and maps.
        writes: what comes to lie in the memory of a call.
        values: nodes whose values it leaves behind.
        looks: whether these may be other looks at what it reads or writes.
    """

    made: Any
    run: Callable[[Env], None]
    reads: Sequence[Node | Map]
    writes: Sequence[Map | Buffer] = ()
    values: Sequence[Node] = ()
    looks: bool = False


def joined(
    steps: Sequence[Step], ends: Collection[Node], few: Callable[[], Few], run: Callable[[Few, list[Node]], Any]
) -> list[Step]:
    """Return the steps with those on few numbers made one where they follow each other.

    Args:
        steps: one after the other.
        ends: nodes whose values the network returns.
        few: makes an empty one.
        run: what to do for one, after which these nodes' values are wanted.
    """
    out: list[Step] = []
    taken: Few = few()
    parts: list[Step] = []
    for i, step in enumerate([*steps, None]):
        if step is not None and isinstance(step.made, Node) and taken.add(step.made):
            parts.append(step)
            continue
        if taken.worth:
            later = {*ends, *(thing for other in steps[i:] for thing in other.reads)}
            values = [node for part in parts for node in part.values if node in later]
            reads = [base for base in taken.bases if isinstance(base, Node | Map)]
            writes = [base for base in taken.bases if isinstance(base, Buffer)]
            out.append(Step(taken, run(taken, values), reads, writes, values, looks=True))
        else:
            out += parts
        taken, parts = few(), []
        if step is not None:
            out.append(step)
    return out


def last_uses(steps: Sequence[Step], ends: Collection[Node]) -> list[list[Node]]:
    """Return the nodes whose values may be dropped after each step."""
    last: dict[Any, int] = {}
    for i, step in enumerate(steps):
        last.update((thing, i) for thing in step.reads if thing in last)
        last.update((node, i) for node in step.values)
    drops: list[list[Node]] = [[] for _ in steps]
    for node, i in last.items():
        if node not in ends:
            drops[i].append(node)
    return drops


def spans(
    steps: Sequence[Step], ends: Collection[Node], size: Callable[[Map | Buffer], int]
) -> list[Span[Map | Buffer]]:
    """Return when all that is written is there: as long as anything that may be a look at it is."""
    first: dict[Map | Buffer, int] = {}
    last: dict[Map | Buffer, int] = {}
    roots: dict[Any, set[Map | Buffer]] = {}
    for i, step in enumerate(steps):
        read: set[Map | Buffer] = {thing for thing in step.reads if isinstance(thing, Map) and thing.kind != Kind.LOAD}
        read = read.union(*(roots.get(thing, ()) for thing in step.reads))
        last.update(dict.fromkeys(read, i))
        for thing in step.writes:
            first[thing] = last[thing] = i
        if step.looks:
            roots.update((node, read.union(step.writes)) for node in step.values)
    for node in ends:
        last.update(dict.fromkeys(roots.get(node, ()), len(steps)))
    return [Span(thing, begin, last[thing], size(thing)) for thing, begin in first.items()]
