"""What reshaping does to channels: axes are split (into heads, blocks) and merged (with pixels, the batch)."""

from __future__ import annotations

import numpy as np
from torch.fx import Node

from prunekit.structured.slots import Track, Tracks
from prunekit.structured.walk import Walk

Block = tuple[range, range]
"""Axes before and axes after that hold the same entries."""


def viewed(walk: Walk, source: Node, old: tuple[int, ...], new: tuple[int, ...]) -> Tracks:
    """Return the tracks of a value after its entries got another shape, in the same order."""
    if old == new:
        return walk.tracks(source)
    blocks = _blocks(old, new)
    seen = (_seen(walk, track, old, new, blocks) for track in walk.tracks(source))
    return tuple(track for track in seen if track is not None)


def _blocks(old: tuple[int, ...], new: tuple[int, ...]) -> list[Block]:
    """Return the finest parts of both shapes that hold the same entries.

    Example:
        >>> _blocks((2, 12, 5, 5), (2, 3, 4, 25))
        [(range(0, 1), range(0, 1)), (range(1, 2), range(1, 3)), (range(2, 4), range(3, 4))]
    """
    blocks, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        start, other = i, j
        one = two = 1
        while i == start or j == other or one != two:
            if (one <= two and i < len(old)) or j == len(new):
                one, i = one * old[i], i + 1
            else:
                two, j = two * new[j], j + 1
            if i == len(old) and j == len(new):
                break
        while i < len(old) and old[i] == 1 and (j == len(new) or new[j] != 1):
            i += 1
        while j < len(new) and new[j] == 1 and (i == len(old) or old[i] != 1):
            j += 1
        blocks.append((range(start, i), range(other, j)))
    return blocks


def _seen(walk: Walk, track: Track, old: tuple[int, ...], new: tuple[int, ...], blocks: list[Block]) -> Track | None:
    touched = [(before, after) for before, after in blocks if set(before) & set(track.axes)]
    axes = [axis for before, _ in touched for axis in before]
    order = sorted(range(len(track.axes)), key=lambda place: track.axes[place])
    sizes = [old[axis] if axis in track.axes else 1 for axis in axes]
    grid = np.broadcast_to(track.slots.transpose(order).reshape(sizes), [old[axis] for axis in axes])
    places = [axis for _, after in touched for axis in after]
    grid = grid.reshape([new[axis] for axis in places])
    varying = [place for place in range(grid.ndim) if (grid != grid.take([0], place)).any()]
    (ending,) = [after for before, after in touched if track.axes[-1] in before]
    last = max((place for place in varying if places[place] in ending), default=None)
    if last is None:  # a single channel, or a single one at each place
        walk.slots.keep(track.slots)
        return None
    kept = [*(place for place in varying if place != last), last]
    grid = grid.transpose([*kept, *(place for place in range(grid.ndim) if place not in kept)])
    grid = grid.reshape(*grid.shape[: len(kept)], -1)[..., 0]
    walk.slots.rectangle(grid)
    return Track(tuple(places[place] for place in kept), grid)
