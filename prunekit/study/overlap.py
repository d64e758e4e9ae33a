"""How much the tickets of tasks have in common, tensor by tensor, beside what chance would give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import final

import numpy as np

from prunekit.masks import Masks
from prunekit.score import read_masks
from prunekit.study.arms import TICKET
from prunekit.study.results import ArmResult
from prunekit.study.single import ALL, Each


@final
@dataclass(frozen=True)
class Shared:
    """What two tickets keep of one tensor, or of several.

    Args:
        first, second: entries that each keeps.
        both: that both keep.
        by_chance: that both would keep if each kept as many of every tensor in random places; the expectation.
    """

    first: int
    second: int
    both: int
    by_chance: float

    def __add__(self, other: Shared) -> Shared:
        return Shared(
            self.first + other.first,
            self.second + other.second,
            self.both + other.both,
            self.by_chance + other.by_chance,
        )

    @property
    def of_either(self) -> float:
        """Intersection over union, in [0, 1]; 1 where neither keeps anything.

        Example:
            >>> Shared(first=4, second=4, both=2, by_chance=1.6).of_either
            0.3333333333333333
        """
        return _ratio(self.both, self.first + self.second - self.both)

    @property
    def chance(self) -> float:
        """The same ratio for tickets in random places: of the expectations, in [0, 1]."""
        return _ratio(self.by_chance, self.first + self.second - self.by_chance)


NONE = Shared(0, 0, 0, 0.0)


@final
@dataclass(frozen=True)
class Overlap:
    """What the tickets of two sources share: seed -> tensor, in model order -> counts."""

    first: str
    second: str
    seeds: Mapping[int, Mapping[str, Shared]]

    def layers(self) -> dict[str, Shared]:
        """Return tensor -> counts, summed over the seeds."""
        found: dict[str, Shared] = {}
        for tensors in self.seeds.values():
            for name, shared in tensors.items():
                found[name] = found.get(name, NONE) + shared
        return found

    def totals(self) -> dict[int, Shared]:
        """Return seed -> counts, summed over the tensors."""
        return {seed: sum(tensors.values(), NONE) for seed, tensors in self.seeds.items()}


def overlaps(each: Each, arms: Mapping[str, ArmResult]) -> list[Overlap]:
    """Compare the last tickets of the single tasks and that of all, pair by pair, of the same seed.

    Raises:
        CheckpointError: a cut of a run is damaged.
    """
    sources = {source: each.ticket(source) for source in each.values} | {ALL: TICKET}
    pairs = [pair for pair in combinations(sources, 2) if all(sources[source] in arms for source in pair)]
    found: dict[tuple[str, str], dict[int, Mapping[str, Shared]]] = {pair: {} for pair in pairs}
    for seed in sorted({seed for arm in arms.values() for seed in arm.stages}):
        held = {
            source: read_masks(arms[arm].stages[seed][-1].folder / "cut.safetensors")
            for source, arm in sources.items()
            if arm in arms and seed in arms[arm].stages
        }
        for first, second in pairs:
            if first in held and second in held:
                found[first, second][seed] = dict(_shared(held[first], held[second]))
    return [Overlap(first, second, seeds) for (first, second), seeds in found.items() if seeds]


def _shared(first: Masks, second: Masks) -> Iterator[tuple[str, Shared]]:
    for name, mask in first.items():
        if name in second and second[name].shape == mask.shape:
            mine, other = mask.numpy(), second[name].numpy()
            kept, theirs = int(np.count_nonzero(mine)), int(np.count_nonzero(other))
            yield name, Shared(kept, theirs, int(np.count_nonzero(mine & other)), kept * theirs / mine.size)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 1.0
