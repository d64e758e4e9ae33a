"""Ties: rows of channels that a network's code needs in proportion, and what that makes of what goes together.

Heads must stay equally wide, and so must the halves of a gate. No head's third channel has anything to do with another
head's third one, so they are not coupled by their places: each row, a *lane* here, loses its own least channels, as
many as every other lane of its tie.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prunekit.structured.slots import Ids, Slots

Ties = list[list[Ids]]
"""Each tie a list of lanes, each lane some components; no component is in two lanes."""


def tied(slots: Slots, axes: Sequence[Ids]) -> tuple[Ids, Ties]:
    """Return the component of every slot, 0 where it stays, and the ties between components.

    What cannot be put into lanes, since rows share some of their channels, is coupled by place. A component that is all
    of an axis stays, as no layer can have a width of 0.

    Args:
        slots: all that is known of them.
        axes: the slots of each axis of each parameter.
    """
    while True:
        root = slots.components()
        before = len(slots.pairs)
        for axis in axes:
            if (root[axis] == root[axis[0]]).all():
                slots.keep(root[axis[:1]])
        rows = [*(_rows(slots, root[grid]) for grid in slots.grids), *_proportions(slots, root)]
        ties = _lanes(slots, sorted((each for each in rows if each), key=lambda each: min(map(len, each))))
        if not any((root[one] != root[other]).any() for one, other in slots.pairs[before:]):
            return root, ties


def _rows(slots: Slots, grid: Ids) -> list[Ids]:
    """Return the rows that must stay equally long; none if nothing needs to be said."""
    for axis in reversed(range(grid.ndim)):
        if (grid == grid.take([0], axis)).all():
            grid = np.take(grid, 0, axis)
    if grid.ndim < 2:
        return []
    if (grid == 0).any():
        slots.keep(grid)
        return []
    rows = list(grid.reshape(-1, grid.shape[-1]))
    if any(len(np.unique(row)) < len(row) for row in rows):
        slots.couple(grid, grid.reshape(-1, grid.shape[-1])[0])
        return []
    return rows


def _proportions(slots: Slots, root: Ids) -> list[list[Ids]]:
    found = []
    for declared in slots.proportions:
        rows = [np.unique(root[row]) for row in declared]
        if any((row == 0).any() for row in rows):
            for row in rows:
                slots.keep(row)
        else:
            found.append(rows)
    return found


def _lanes(slots: Slots, constraints: list[list[Ids]]) -> Ties:
    """Cut all rows into disjoint lanes, the shortest first; tie the lanes of one constraint."""
    lanes: list[Ids] = []
    owner: dict[int, int] = {}
    ties: list[set[int]] = []
    for rows in constraints:
        members: set[int] = set()
        for row in sorted(rows, key=len):
            owners = {owner[each] for each in map(int, row) if each in owner}
            rest = np.array([each for each in map(int, row) if each not in owner], dtype=np.int64)
            if sum(len(lanes[each]) for each in owners) + len(rest) != len(row):
                return _by_place(slots, rows)
            if len(rest):
                owner |= dict.fromkeys(map(int, rest), len(lanes))
                owners.add(len(lanes))
                lanes.append(rest)
            members |= owners
        touching = [tie for tie in ties if tie & members]
        ties = [tie for tie in ties if not tie & members] + [members.union(*touching)]
    return [[lanes[each] for each in sorted(tie)] for tie in ties if len(tie) > 1]


def _by_place(slots: Slots, rows: list[Ids]) -> Ties:
    """Couple rows that share channels index by index; what is found after that is final."""
    shortest = min(rows, key=len)
    for row in rows:
        if len(row) % len(shortest):
            slots.keep(np.concatenate(rows))
            break
        slots.couple(row.reshape(len(shortest), -1), shortest[:, None])
    return []
