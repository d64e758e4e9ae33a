"""Channels: which indices of which tensor axes must go or stay together, and which of them can reach the output.

Every index of an axis that may shrink has a *slot*, a number. Three things are known of slots: that two of them go or
stay together (an addition, a depthwise filter), that one reads another (a weight that is not zero), and that one must
stay (what a rule does not understand). A slot lives if it must stay or a living slot reads it or goes with it; all the
others can be left out without a trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor
from torch.fx import Node

from prunekit.trace import shape_of


@final
@dataclass(frozen=True, eq=False)
class Channels:
    """The axis of a tensor that may shrink, a slot per index, and what is known of the values there.

    ``constant`` (float64) holds the value of each channel that has one and the same at all positions for all inputs,
    and nan for the others.
    """

    axis: int
    slots: Tensor
    constant: Tensor


Link = tuple[Tensor, Tensor, Tensor | None]
"""Slots, the slots that stay if they do, and which of those each reads (bool); None where they go in pairs."""

Found = Channels | list[Channels | None] | None
"""What is known of a value in the graph; a list for an operator that returns several tensors, None for nothing."""


@final
@dataclass(frozen=True, eq=False)
class Fold:
    """What constant columns add to every row of a layer, to be added to its bias once the columns are gone."""

    bias: str
    columns: Tensor
    amounts: Tensor  # rows x columns, float64


@final
@dataclass(frozen=True, eq=False)
class Flow:
    """All that is known of the slots of one graph; rules add to it.

    Args:
        tensors: placeholder of a parameter or buffer -> its canonical name.
        weights: canonical name -> its values, on the CPU.
        foldable: names of the biases that one layer alone reads and no mask cuts.
        trusting: whether sizes written into reshapes and splits may be taken to follow the network's shape.
    """

    tensors: Mapping[Node, str]
    weights: Mapping[str, Tensor]
    foldable: frozenset[str]
    trusting: bool
    values: dict[Node, Found] = field(default_factory=dict)
    parameters: dict[tuple[str, int], Tensor] = field(default_factory=dict)  # (name, axis) -> slots
    attributes: dict[tuple[str, str], int] = field(default_factory=dict)  # (name, attribute) -> axis that it counts
    folds: list[Fold] = field(default_factory=list)
    axes: list[Tensor] = field(default_factory=list)
    frozen: list[Tensor] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)

    def new(self, size: int) -> Tensor:
        """Return slots for an axis of this size."""
        first = next((int(slots[-1]) + 1 for slots in reversed(self.axes) if len(slots)), 0)
        self.axes.append(torch.arange(first, first + size))
        return self.axes[-1]

    def couple(self, slots: Tensor, others: Tensor) -> None:
        """Note that each of ``slots`` goes or stays with the one of ``others`` at the same place."""
        self.links.extend([(slots, others, None), (others, slots, None)])

    def read(self, rows: Tensor, columns: Tensor, reads: Tensor) -> None:
        """Note which columns each row reads: ``reads`` is bool, rows x columns."""
        self.links.append((rows, columns, reads))

    def parameter(self, name: str, axis: int) -> Tensor:
        """Return the slots of an axis of a parameter or buffer."""
        axis %= self.weights[name].dim()
        if (name, axis) not in self.parameters:
            self.parameters[name, axis] = self.new(self.weights[name].shape[axis])
        return self.parameters[name, axis]

    def freeze(self, node: Node, *, but: tuple[int, ...] = ()) -> None:
        """Keep all channels of a value; of a parameter all axes, ``but`` those that the caller answers for."""
        if node in self.tensors:
            name = self.tensors[node]
            axes = [axis for axis in range(self.weights[name].dim()) if axis not in but]
            self.frozen.extend(self.parameter(name, axis) for axis in axes)
            return
        found = self.values.get(node)
        for channels in found if isinstance(found, list) else [found]:
            if channels is not None:
                self.frozen.append(channels.slots)

    def find(self, node: Node) -> Channels | None:
        """Return what is known of a value; a parameter counts as channels if only one of its axes is longer than 1."""
        if node in self.tensors:
            long = [axis for axis, size in enumerate(self.weights[self.tensors[node]].shape) if size > 1]
            return self.channels(node, long[0]) if len(long) == 1 else None
        found = self.values.get(node)
        return found if isinstance(found, Channels) else None

    def channels(self, node: Node, axis: int) -> Channels:
        """Return the channels of a value along this axis, frozen ones if nothing is known of it there."""
        shape = shape_of(node)
        axis %= len(shape)
        if node in self.tensors:
            self.freeze(node, but=(axis,))
            name = self.tensors[node]
            values = self.weights[name].double().movedim(axis, 0)[..., None].flatten(1)
            same = (values == values[:, :1]).all(1)
            return Channels(axis, self.parameter(name, axis), values[:, 0].where(same, torch.nan))
        found = self.values.get(node)
        if isinstance(found, Channels) and found.axis == axis:
            return found
        self.freeze(node)
        slots = self.new(shape[axis])
        self.frozen.append(slots)
        return Channels(axis, slots, torch.full((shape[axis],), torch.nan, dtype=torch.float64))

    def live(self) -> Tensor:
        """Return for every slot whether it stays; one of every axis does, whether anything reads it or not."""
        live = torch.zeros(sum(len(slots) for slots in self.axes), dtype=torch.bool)
        for slots in self.frozen:
            live[slots] = True
        self._spread_(live, self.links)
        coupled = [link for link in self.links if link[2] is None]
        used = [found.slots for found in self.values.values() if isinstance(found, Channels)]
        for slots in reversed([*self.axes, *used]):
            if len(slots) and not live[slots].any():
                live[slots[0]] = True  # a layer of width 0 is more than most networks' own code can take
                self._spread_(live, coupled)  # nothing reads its value, so what it reads need not stay
        return live

    @staticmethod
    def _spread_(live: Tensor, links: Sequence[Link]) -> None:
        """Let life spread against the direction of the computation until nothing more happens."""
        before = -1
        while before != (before := int(live.sum())):
            for source, target, reads in reversed(links):
                if reads is None:
                    live[target[live[source]]] = True
                elif reads.numel():
                    live[target[reads[live[source]].any(0)]] = True
