"""Chains of maps for tests: what they are in float64, and a run of the kernels between guards."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from prunekit.sparse.engine.maps import SINKS, Kind, Map, Mode
from prunekit.sparse.engine.program import Program, pointers
from prunekit.sparse.engine.rings import Cut
from prunekit.sparse.engine.stages import Chain

GUARD = int(os.environ.get("GUARD_FLOATS", "64"))
"""None where a sanitizer stands guard: it knows only where memory ends that was allocated."""
MARK = 0x7FC12345
"""A NaN that no arithmetic makes: who reads it shows, and so does who overwrites it."""


@final
@dataclass
class Case:
    """A chain, which channels of which maps lie in memory, what is in those that it reads, and how it is cut."""

    maps: list[Map]
    stored: dict[Map, tuple[int, int]]
    values: dict[Map, Tensor]
    cut: Cut
    matrices: dict[Map, Tensor] = field(default_factory=dict)
    threads: int = 1

    def __repr__(self) -> str:  # what hypothesis prints of a failure
        names = {map: f"{map.kind.name}{i}" for i, map in enumerate([*self.values, *self.maps])}
        lines = [
            f"{names[map]}{map.shape} of {[(names[operand], at) for operand, at in map.operands]} mode {map.mode} "
            f"inputs {map.inputs} stored {self.stored.get(map)}"
            for map in names
        ]
        return "\n".join([f"{self.cut} threads {self.threads}", *lines])


@final
class Guarded:
    """Memory full of marks, more of them on both sides."""

    def __init__(self, floats: int) -> None:
        self._whole = torch.full((floats + 2 * GUARD,), MARK, dtype=torch.int32)
        self.inner = self._whole.view(torch.float32)[GUARD : GUARD + floats]

    def check(self) -> None:
        """Fail where something was written on either side."""
        assert bool((self._whole[:GUARD] == MARK).all()), "written before the beginning"
        assert bool((self._whole[len(self.inner) + GUARD :] == MARK).all()), "written beyond the end"


def run(case: Case) -> dict[Map, Tensor]:
    """Return what the kernels make: of stored maps (n, c, h, w), of sinks (n, numbers)."""
    program = Program(Chain(case.maps), case.stored, case.cut)
    given = []
    for map in program.inputs:
        value = case.values[map]
        if map in case.stored:
            low, high = case.stored[map]
            value = value[:, low:high].transpose(1, 2)
        given.append(value)
    floats = [math.prod(_stored_shape(map, case)) for map in program.outputs]
    floats += [program.items * map.size for map in program.sinks]
    made = [Guarded(size) for size in floats]
    known = [_guarded(value) for value in (*given, *(case.matrices[map] for map in program.matrices))]
    tensors = [*known[: len(given)], *made, *known[len(given) :]]
    before = [memory.inner.clone() for memory in known]
    scratch = Guarded(case.threads * program.scratch)
    program(pointers([memory.inner for memory in tensors]), scratch.inner.data_ptr(), case.threads)
    for memory in (*tensors, scratch):
        memory.check()
    for memory, copy in zip(known, before, strict=True):
        assert torch.equal(memory.inner.view(torch.int32), copy.view(torch.int32)), "an input was written to"
    results = {}
    for map, memory in zip((*program.outputs, *program.sinks), made, strict=True):
        n, h, c, w = _stored_shape(map, case) if map in case.stored else (0, 0, 0, 0)
        results[map] = (
            memory.inner.view(map.shape[0], -1, map.size)[:, 0]
            if map.kind in SINKS
            else memory.inner.view(n, h, c, w).transpose(1, 2)
        )
    return results


def _stored_shape(map: Map, case: Case) -> tuple[int, int, int, int]:
    (n, _, h, w), (low, high) = map.shape, case.stored[map]
    return n, h, high - low, w


def _guarded(value: Tensor) -> Guarded:
    memory = Guarded(value.numel())
    memory.inner.view(value.shape).copy_(value)
    return memory


def expected(case: Case) -> dict[Map, Tensor]:
    """Return the same by torch in float64, where a weight of zero is none: it multiplies nothing."""
    known = {map: value.double() for map, value in case.values.items()}
    for map in case.maps:
        known[map] = _exact(map, known, case.matrices.get(map))
    results = {map: known[map][:, low:high] for map, (low, high) in case.stored.items() if map in case.maps}
    return results | {map: known[map] for map in case.maps if map.kind in SINKS}


def _exact(map: Map, known: dict[Map, Tensor], matrices: Tensor | None) -> Tensor:
    n, c, h, w = map.shape
    parts = [known[operand][:, at:] for operand, at in map.operands]
    x, weight = parts[0], None if map.weight is None else map.weight.double()
    bias = None if map.bias is None else map.bias.double()
    shift = 0 if bias is None else bias[:, None, None]
    match map.kind:
        case Kind.NORM:
            y = F.layer_norm(x[:, :c].movedim(1, -1), (c,), weight, bias, map.epsilon).movedim(-1, 1)
        case Kind.SPARSE:
            assert weight is not None
            size = weight.shape[2]
            read = F.unfold(x[:, : map.inputs], size, padding=size // 2).view(
                n, -1, h, w
            )  # what cut weights read, no one does
            rows = weight.flatten(1)
            y = torch.stack(
                [torch.einsum("k,nkhw->nhw", row[row != 0], read[:, row.nonzero()[:, 0]]) for row in rows], 1
            )
            y = _activated(y + shift + (parts[1][:, :c] if len(parts) > 1 else 0), map.mode)
        case Kind.DENSE:
            heads = max(map.mode, 1)
            every = weight if matrices is None else matrices.double().view(n, heads, c // heads, map.inputs)
            y = every @ x[:, : heads * map.inputs].reshape(n, heads, map.inputs, h * w)
            y = y.view(n, c, h, w) + shift + (parts[1][:, :c] if len(parts) > 1 else 0)
        case Kind.DEPTHWISE:
            assert weight is not None
            gates = map.mode != Mode.NONE
            y = F.conv2d(x[:, : c * (1 + gates)], weight, bias, padding=map.inputs // 2, groups=c * (1 + gates))
            y = _activated(y[:, :c], map.mode) * y[:, c:] if gates else y
        case Kind.ACTIVATE:
            y = _activated(x[:, :c], map.mode)
        case Kind.GATE | Kind.ADD | Kind.JOIN | Kind.GRAM:
            y = _of_two(map, x, parts[1])
        case Kind.AFFINE:
            scale = (
                weight[:, None, None] if weight is not None else 1 if matrices is None else matrices[..., None, None]
            )
            y = x[:, :c] * scale + shift
        case _:
            y = (x[:, :c] ** (1 + map.mode)).sum((2, 3))
    return y


def _of_two(map: Map, x: Tensor, other: Tensor) -> Tensor:
    n, c, h, w = map.shape
    if map.kind == Kind.GATE:
        return _activated(x[:, :c], map.mode) * other[:, :c]
    if map.kind == Kind.ADD:
        return x[:, :c] + other[:, :c]
    if map.kind == Kind.JOIN:
        return torch.cat((x[:, : map.inputs], other[:, : c - map.inputs]), 1)
    k = other[:, : map.mode * map.inputs].reshape(n, map.mode, map.inputs, h * w)
    return (x[:, :c].reshape(n, map.mode, -1, h * w) @ k.mT).flatten(1)


def _activated(x: Tensor, mode: int) -> Tensor:
    if mode == Mode.GELU:
        return torch.where(x < -5, x * 0, F.gelu(x))  # in single precision a millionth and less, which is none here
    return F.relu(x) if mode == Mode.RELU else x


def sparse_(weight: Tensor, density: float) -> Tensor:
    """Cut weights, and some rows altogether."""
    rows = torch.rand(len(weight), 1, 1, 1) < 0.8
    return weight.mul_((torch.rand(weight.shape) < density) & (rows | (density == 1)))
