"""Rings: how the maps of a chain lie in memory while it runs, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import torch

from prunekit.sparse.engine.maps import SINKS, Kind, Map
from prunekit.sparse.engine.memory import Span, pack
from prunekit.sparse.engine.stages import Chain

LANES, TILE = 16, 64


@final
@dataclass(frozen=True)
class Cut:
    """How an image is cut: rows and columns of an item, which one thread works on, and rows of a band."""

    tall: int
    wide: int
    band: int


@final
@dataclass(frozen=True)
class Ring:
    """Where a map lies: rows of a ring in scratch memory, or, with 0 rows, the whole map in the memory between chains.

    Args:
        rows: of the ring.
        first: channel of the map that lies there first.
        channels: that lie there.
        at: first float.
        pitch: floats from channel to channel.
        margin: zeros before and after each row, and whether a row of zeros follows the last: for those who look beyond
            the image.
    """

    rows: int
    first: int
    channels: int
    at: int
    pitch: int
    margin: int = 0


@final
class Layout:
    """Where everything lies while a chain runs.

    Args:
        chain: the maps.
        inputs: maps that it reads, and which channels.
        stored: maps that are written to memory, or read from there, and which channels lie there.
        cut: into bands and items.
    """

    def __init__(
        self,
        chain: Chain,
        inputs: Mapping[Map, tuple[int, int]],
        stored: Mapping[Map, tuple[int, int]],
        cut: Cut,
    ) -> None:
        _, _, height, width = chain.maps[0].shape
        self.halo = halos(chain, inputs)
        strips = -(-width // cut.wide)
        # Kernels are square: columns of other items are looked at as far as rows are.
        self.edge = -(-max(self.halo.values()) // LANES) * LANES if strips > 1 else 0
        self.span = -(-min(width, cut.wide + 2 * self.edge) // LANES) * LANES
        self.rings: dict[Map, Ring] = {}
        self._spans: list[Span[Map]] = []
        order = {map: i for i, map in enumerate([*inputs, *chain.maps])}
        rings: dict[Map, Ring] = {}
        for map in order:
            if map.kind in SINKS and map not in inputs:
                continue
            first, last = inputs.get(map, (0, map.channels))
            if self._whole(map, chain, inputs, stored, strips):
                low, high = stored[map]
                self.rings[map] = Ring(0, low, high - low, 0, width)
                continue
            kept = _kept(map, chain, self.halo, {} if map in inputs else stored)
            margin = LANES if any(reach(other) for other in _readers(map, chain)) else 0
            # Wide rows that are a power of two apart would share few sets of the first-level cache.
            pitch = self.span + (LANES if margin or self.span >= TILE else 0)
            ring = Ring(min(height, cut.band + kept), first, last - first, 0, pitch, margin)
            size = (ring.rows + bool(margin)) * ring.channels * pitch + 2 * LANES
            readers = [order[other] for other in _readers(map, chain)]
            # What is read within the step that made it can lie where something else lay before and will lie after.
            passing = kept == 0 and not (map in stored and map not in inputs)
            end = max(readers, default=order[map]) if passing else len(order)
            self._spans.append(Span(map, order[map] if passing else 0, end, size))
            rings[map] = ring
        places, floats = pack(self._spans)
        for map, ring in rings.items():
            self.rings[map] = replace(ring, at=places[map])
        self.flat = floats
        floats += max((_non_zeros(map) for map in chain.maps if self.by_columns(map)), default=0)
        self.scratch = -(-(floats + LANES) // LANES) * LANES

    def by_columns(self, map: Map) -> bool:
        """Return whether a product goes column by column of its kernel: where rows are long."""
        return map.kind == Kind.SPARSE and reach(map) == 1 and self.span >= TILE

    def _whole(self, map: Map, chain: Chain, inputs: Mapping[Map, Any], stored: Mapping[Map, Any], strips: int) -> bool:
        """Return whether operators read or write the map in the memory between chains, without a ring.

        There are no zeros beside its rows, and beyond its columns lies the next channel.
        """
        if map not in stored or map.kind == Kind.LOAD or map.shape[3] % LANES:
            return False
        if any(reach(other) for other in _readers(map, chain)):
            return False
        return map in inputs or (strips == 1 and self.halo[map] == 0 and stored[map] == (0, map.channels))


def reach(map: Map) -> int:
    """Return how many rows above and below its own an operator reads."""
    return map.weight.shape[2] // 2 if map.kind in {Kind.SPARSE, Kind.DEPTHWISE} and map.weight is not None else 0


def halos(chain: Chain, inputs: Mapping[Map, Any]) -> dict[Map, int]:
    """Return how many rows ahead of the band each map must be."""
    halo = dict.fromkeys((*inputs, *chain.maps), 0)
    for map in reversed(chain.maps):
        for operand, _ in map.operands:
            halo[operand] = max(halo[operand], halo[map] + reach(map))
    return halo


def _non_zeros(map: Map) -> int:
    return 0 if map.weight is None else int(torch.count_nonzero(map.weight))


def _readers(map: Map, chain: Chain) -> list[Map]:
    return [other for other in chain.maps if any(operand is map for operand, _ in other.operands)]


def _kept(map: Map, chain: Chain, halo: Mapping[Map, int], stored: Mapping[Map, Any]) -> int:
    """Return how many rows a ring holds beyond those of a band: until the last reader has passed them."""
    behind = [halo[map] - halo[other] + reach(other) for other in _readers(map, chain)]
    return max([*behind, halo[map] if map in stored else 0])
