"""The walk through a traced network: what is known of every value's axes, and how an operator's axes correspond."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from torch.fx import Node

from prunekit.structured.slots import Ids, Slots, Track, Tracks
from prunekit.trace import shape_of

Labels = Sequence[Hashable]
"""A name for each axis of an operand; axes of several operands with one name run along each other."""

Value = Tracks | list[Tracks]
"""What is known of a value; a list for an operator that returns several tensors."""


def is_tensor(value: Any) -> bool:
    """Return whether an operator's argument is a tensor in the graph."""
    return isinstance(value, Node) and hasattr(value.meta.get("val"), "shape")


def module_of(node: Node) -> str:
    """Return the path of the module in whose code an operator stands."""
    return ["", *modules_of(node)][-1]


def modules_of(node: Node) -> dict[str, str]:
    """Return path -> class of the modules in whose code an operator stands, the innermost one last."""
    stack = node.meta.get("nn_module_stack") or {}
    return {str(path): str(kind) for path, kind in stack.values()}


@final
@dataclass(frozen=True, eq=False)
class _Labelled:
    """A track whose axes are called by labels."""

    labels: tuple[Hashable, ...]
    slots: Ids


@final
@dataclass(eq=False)
class Walk:
    """What is known so far; rules add to it.

    Args:
        stored: placeholder of a parameter or buffer -> its canonical name.
    """

    stored: Mapping[Node, str]
    slots: Slots = field(default_factory=Slots)
    values: dict[Node, Value] = field(default_factory=dict)
    axes: dict[tuple[str, int], Ids] = field(default_factory=dict)  # (name, axis) -> slots
    sizes: dict[str, Ids] = field(default_factory=dict)  # path of an attribute -> slots that it counts

    def axis(self, name: str, axis: int, size: int) -> Ids:
        """Return the slots of an axis of a parameter or buffer."""
        if (name, axis) not in self.axes:
            self.axes[name, axis] = self.slots.new(size)
        return self.axes[name, axis]

    def tracks(self, node: Node) -> Tracks:
        """Return what is known of a value; of a parameter, that each of its axes may shrink."""
        if node in self.stored:
            sizes = enumerate(shape_of(node))
            return tuple(Track((a,), self.axis(self.stored[node], a, size)) for a, size in sizes if size > 1)
        found = self.values.get(node, ())
        return found if isinstance(found, tuple) else ()

    def keep(self, node: Node) -> None:
        """Let all channels of a value stay."""
        found = self.values.get(node, ())
        for tracks in found if isinstance(found, list) else [self.tracks(node)]:
            for track in tracks:
                self.slots.keep(track.slots)

    def keep_inputs(self, node: Node) -> None:
        """Let all channels of an operator's inputs stay: nothing is known of what it does to them."""
        for operand in node.all_input_nodes:
            if is_tensor(operand) or isinstance(self.values.get(operand), list):
                self.keep(operand)

    def count(self, node: Node, attribute: str, slots: Ids) -> None:
        """Note that an attribute of the module in which an operator stands counts these slots."""
        self.sizes[f"{module_of(node)}.{attribute}".removeprefix(".")] = slots

    def combine(self, operands: Sequence[tuple[Node, Labels]], out: Labels) -> Tracks:
        """Return what is known of a result that has each operand's axes where the labels say.

        Axes with one label run along each other, so their slots go together. A label that the result lacks was summed
        over. What shrinks in one operand and is a full axis in another, of which nothing is known, stays.

        Args:
            operands: each with a label for each of its axes; the same label for axes of size 1 means broadcasting.
            out: a label for each axis of the result.
        """
        known = [self._labelled(node, labels) for node, labels in operands if node not in self.stored]
        full = [_full(node, labels) for node, labels in operands if node not in self.stored]
        places = {label for tracks in known for track in tracks for label in track.labels[:-1]}
        known, full = self._with_stored(operands, known, full, places, out)
        lasts = dict.fromkeys(track.labels[-1] for tracks in known for track in tracks)
        results: list[Track] = []
        for label in lasts:
            meeting = [track for tracks in known for track in tracks if track.labels[-1] == label]
            lacking = any(
                label in axes and all(track.labels[-1] != label for track in tracks)
                for tracks, axes in zip(known, full, strict=True)
            )
            if label in places or lacking:
                for track in meeting:
                    self.slots.keep(track.slots)
            else:
                results.extend(self._joined(meeting, out))
        return tuple(results)

    def _with_stored(
        self,
        operands: Sequence[tuple[Node, Labels]],
        known: list[list[_Labelled]],
        full: list[set[Hashable]],
        places: set[Hashable],
        out: Labels,
    ) -> tuple[list[list[_Labelled]], list[set[Hashable]]]:
        """Add the parameters: an axis shrinks if what it meets does, or if it alone has that label."""
        shrinking = {track.labels[-1] for tracks in known for track in tracks} - places
        elsewhere = set().union(*full) if full else set()
        for node, labels in operands:
            if node not in self.stored:
                continue
            name, tracks = self.stored[node], []
            for axis, (label, size) in enumerate(zip(labels, shape_of(node), strict=True)):
                if size == 1:
                    continue
                slots = self.axis(name, axis, size)
                if label in shrinking or (label not in elsewhere and label in out):
                    tracks.append(_Labelled((label,), slots))
                else:
                    self.slots.keep(slots)
            known, full = [*known, tracks], [*full, _full(node, labels)]
        return known, full

    def _labelled(self, node: Node, labels: Labels) -> list[_Labelled]:
        return [_Labelled(tuple(labels[a] for a in track.axes), track.slots) for track in self.tracks(node)]

    def _joined(self, meeting: list[_Labelled], out: Labels) -> Iterable[Track]:
        """Couple tracks that shrink along one label; yield the one that the result has."""
        label = meeting[0].labels[-1]
        union = [*dict.fromkeys(each for track in meeting for each in track.labels[:-1]), label]
        spread = [_spread(track, union) for track in meeting]
        for slots in spread[1:]:
            self.slots.couple(spread[0], slots)
        if label not in out:
            return
        shape = np.broadcast_shapes(*(slots.shape for slots in spread))
        joined = Track(tuple(range(len(union))), np.broadcast_to(spread[0], shape))
        for place, each in enumerate(union):
            if each not in out:  # summed over the heads, say
                joined = self.slots.collapse(joined, place) or joined
        yield Track(tuple(list(out).index(union[place]) for place in joined.axes), joined.slots)


def _full(node: Node, labels: Labels) -> set[Hashable]:
    return {label for label, size in zip(labels, shape_of(node), strict=True) if size > 1}


def _spread(track: _Labelled, union: list[Hashable]) -> Ids:
    """Return the slots with an axis for each of the labels, of size 1 where the track has none."""
    sizes = dict(zip(track.labels, track.slots.shape, strict=True))
    order = sorted(range(len(track.labels)), key=lambda place: union.index(track.labels[place]))
    return track.slots.transpose(order).reshape([sizes.get(each, 1) for each in union])
