"""Stages: which maps flow through the bands together, and which must be whole in memory in between."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from torch.fx import Graph, Node

from prunekit.sparse.engine.found import Found
from prunekit.sparse.engine.maps import Kind, Map, Mode
from prunekit.sparse.engine.views import View

WORTH = frozenset({Kind.NORM, Kind.SPARSE, Kind.DENSE, Kind.DEPTHWISE, Kind.GRAM})
"""A chain without any of these is left to torch."""


@final
@dataclass(eq=False)
class Chain:
    """Maps that are computed together, in order."""

    maps: list[Map] = field(default_factory=list)


@final
@dataclass
class Needs:
    """What a graph's output needs: nodes that torch runs, maps, and of each map the channels kept whole in memory."""

    nodes: set[Node] = field(default_factory=set)
    maps: dict[Map, None] = field(default_factory=dict)
    stored: dict[Map, tuple[int, int]] = field(default_factory=dict)

    def store(self, map: Map, start: int, channels: int) -> None:
        """Keep these channels, too."""
        low, high = self.stored.get(map, (start, start))
        self.stored[map] = (min(low, start), max(high, start + channels))


def needs(graph: Graph, found: Found) -> Needs:
    """Return what is needed, from the output backwards."""
    out = Needs()
    (end,) = graph.find_nodes(op="output")
    waiting: list[Node | Map] = [end]
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, Map):
            if thing not in out.maps:
                out.maps[thing] = None
                waiting += [operand for operand, _ in thing.operands]
                if thing.source is not None:
                    waiting.append(thing.source)
        elif thing in found.gathered:
            waiting += [found.gathered[thing].sink, *(factor.source for factor in found.gathered[thing].factors)]
        elif isinstance(view := found.views.get(thing), View) and view.map.kind != Kind.LOAD:
            out.store(view.map, view.start, view.channels)
            waiting.append(view.map)
        elif thing not in out.nodes and thing not in found.constants:
            out.nodes.add(thing)
            waiting += thing.all_input_nodes
    return out


def chains(graph: Graph, found: Found, needed: Needs) -> list[Chain]:
    """Return the maps in groups: connected, of one size, and none waiting for what another one gathers."""
    order = _in_order(graph, found, needed)
    stage = _stages(order, found, set())
    ends = _ends(stage, needed) | _between(order, stage)
    stage = _stages(order, found, ends)
    group: dict[Map, Chain] = {}
    for map in order:
        if not isinstance(map, Map) or map.kind == Kind.LOAD:
            continue
        chain = Chain()
        for operand, _ in map.operands:
            other = group.get(operand)
            if other is not None and stage[operand] == stage[map] and other is not chain:
                for moved in chain.maps:
                    group[moved] = other
                other.maps += chain.maps
                chain = other
        chain.maps.append(map)
        group[map] = chain
    place = {thing: i for i, thing in enumerate(order)}
    found_chains = list(dict.fromkeys(group.values()))
    for chain in found_chains:
        chain.maps.sort(key=place.__getitem__)
    return found_chains


def _in_order(graph: Graph, found: Found, needed: Needs) -> list[Node | Map]:
    """Return needed nodes and maps, each after what it is made of."""
    order: dict[Node | Map, None] = {}
    for node in graph.nodes:
        view = found.views.get(node)
        known = found.gathered[node].sink if node in found.gathered else view.map if isinstance(view, View) else None
        if known is not None and known in needed.maps:
            if known.kind == Kind.LOAD and known.source not in order and known.source in needed.nodes:
                order[known.source] = None
            for operand, _ in known.operands:
                order.setdefault(operand)
            order.setdefault(known)
        if node in needed.nodes:
            order.setdefault(node)
    return list(order)


def _stages(order: list[Node | Map], found: Found, ends: set[Map]) -> dict[Node | Map, int]:
    """Return a number for each; what waits for a whole map, or for what is gathered of one, has a higher one."""
    stage: dict[Node | Map, int] = {}
    for thing in order:
        if isinstance(thing, Map):
            before = [stage[operand] + (operand in ends) for operand, _ in thing.operands]
            if thing.source is not None:
                before.append(_of_node(thing.source, stage, found))
        else:
            before = [_of_node(node, stage, found) for node in thing.all_input_nodes]
        stage[thing] = max(before, default=0)
    return stage


def _ends(stage: dict[Node | Map, int], needed: Needs) -> set[Map]:
    """Return the sums that are kept whole anyway: there one block of a network ends, and the next begins."""
    readers = ((operand, map) for map in needed.maps for operand, _ in map.operands)
    return {operand for operand, map in readers if operand.adds and stage[map] > stage[operand]}


def _between(order: list[Node | Map], stage: dict[Node | Map, int]) -> set[Map]:
    """Return sums with depthwise convolutions before and after them: chains of many blocks would look far ahead."""
    maps = [thing for thing in order if isinstance(thing, Map)]
    inside = {map: [below for below, _ in map.operands if stage[below] == stage[map]] for map in maps}
    before: set[Map] = set()
    after: set[Map] = set()
    for map in maps:
        if map.kind == Kind.DEPTHWISE or before.intersection(inside[map]):
            before.add(map)
    for map in reversed(maps):
        if map.kind == Kind.DEPTHWISE or map in after:
            after.update(inside[map])
    return {map for map in before & after if map.adds}


def _of_node(node: Node, stage: dict[Node | Map, int], found: Found) -> int:
    """Return the stage of who waits for a node."""
    if node in found.gathered:
        gathered = found.gathered[node]
        factors = [_of_node(factor.source, stage, found) for factor in gathered.factors]
        return max([stage[gathered.sink] + 1, *factors])
    view = found.views.get(node)
    if isinstance(view, View) and view.map.kind != Kind.LOAD:
        return stage[view.map] + 1
    return stage.get(node, 0)


def worth(chain: Chain) -> bool:
    """Return whether a chain has anything that bands are good for."""
    return any(map.kind in WORTH for map in chain.maps)


def reads(chain: Chain) -> dict[Map, tuple[int, int]]:
    """Return the maps that a chain reads from memory, and which channels of them."""
    out: dict[Map, tuple[int, int]] = {}
    inside = set(chain.maps)
    for map in chain.maps:
        for place, (operand, start) in enumerate(map.operands):
            if operand not in inside:
                low, high = out.get(operand, (start, start))
                out[operand] = (min(low, start), max(high, start + channels_read(map, place)))
    return out


def channels_read(map: Map, place: int) -> int:
    """Return how many channels of its operand number ``place`` a map reads."""
    if map.kind in {Kind.SPARSE, Kind.DENSE} and place == 0:
        return map.inputs * (max(map.mode, 1) if map.kind == Kind.DENSE else 1)
    if map.kind == Kind.JOIN:
        return map.channels - map.inputs if place else map.inputs
    if map.kind == Kind.GRAM and place == 1:
        return map.inputs * map.mode
    if map.kind == Kind.DEPTHWISE and map.mode != Mode.NONE:
        return 2 * map.channels
    return map.channels
