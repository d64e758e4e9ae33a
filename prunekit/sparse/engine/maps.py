"""Maps: the operators of a traced network that a band of rows can flow through, whatever they were spelt like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import final

import torch
from torch import Tensor
from torch.fx import Node


class Kind(IntEnum):
    """Operators on maps; the numbers are those of ``bands.h``, where a JOIN is two AFFINE."""

    LOAD = 0
    STORE = 1
    NORM = 2
    SPARSE = 3
    DENSE = 4
    DEPTHWISE = 5
    GATE = 6
    ACTIVATE = 7
    ADD = 8
    AFFINE = 9
    GRAM = 10
    SUM = 11
    JOIN = 12


class Mode(IntEnum):
    """Activations; the numbers are those of ``bands.h``."""

    NONE = -1
    IDENTITY = 0
    RELU = 1
    GELU = 2


SPARSE_ENOUGH = 0.6
"""Weights of which more is left are not tried as sparse ones: no kernel here gains on them."""
SINKS = frozenset({Kind.GRAM, Kind.SUM})


@final
@dataclass(eq=False)
class Map:
    """A map of shape (n, c, h, w), or of a sink what is gathered of one, and the operator that makes it.

    Args:
        kind: LOAD for what comes from elsewhere.
        shape: of the map; of a sink, of what it reads.
        operands: maps and the first channel that is read of each.
        mode: activation of ACTIVATE, GATE, SPARSE (none or RELU, of its result) and DEPTHWISE (which then
            multiplies its halves, as a gate does), heads of DENSE and GRAM, 1 for a SUM of squares.
        inputs: channels read, of one head (SPARSE, DENSE), channels of a head of the second operand (GRAM), channels of
            the first operand (JOIN), rows and columns of the kernel (DEPTHWISE).
        weight: constants of the layer.
        bias: likewise.
        epsilon: of NORM.
        source: the node that holds a LOAD, or what an operator needs while the network runs: the matrices of DENSE
            as (n * heads, outputs, inputs), the scales of AFFINE as (n, c).
        order: what makes of the value of ``source`` what the operator needs; None where it is that already.
    """

    kind: Kind
    shape: tuple[int, int, int, int]
    operands: tuple[tuple[Map, int], ...] = field(default=(), repr=False)
    mode: int = 0
    inputs: int = 0
    weight: Tensor | None = None
    bias: Tensor | None = None
    epsilon: float = 0.0
    source: Node | None = None
    order: Callable[[Tensor], Tensor] | None = None

    @property
    def channels(self) -> int:
        """Channels of the map."""
        return self.shape[1]

    @property
    def adds(self) -> bool:
        """Whether it is a sum of maps."""
        return self.kind == Kind.ADD or (self.kind in {Kind.SPARSE, Kind.DENSE} and len(self.operands) > 1)

    @property
    def size(self) -> int:
        """Of a sink, the numbers that it gathers for one image."""
        return self.channels * self.inputs if self.kind == Kind.GRAM else self.channels


def density(weight: Tensor) -> float:
    """Return the share of a weight that is not zero."""
    return int(torch.count_nonzero(weight)) / max(weight.numel(), 1)
