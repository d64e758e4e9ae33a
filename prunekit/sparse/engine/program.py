"""Programs: a chain of maps as the kernels' interpreter reads it, cut for one machine into bands and items."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from prunekit.native import library
from prunekit.sparse.engine.maps import SINKS, Kind, Map
from prunekit.sparse.engine.rings import LANES, TILE, Cut, Layout
from prunekit.sparse.engine.stages import Chain, channels_read, reads

WIDEST = 2048
"""Columns of an item at most; with edges on both sides, half of what the kernels have room for."""


def fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    """Return the members of a structure that are of one type."""
    return [(name, kind) for name in names.split()]


class _Ring(ctypes.Structure):
    _fields_ = fields(ctypes.c_int32, "rows margin channels tensor") + fields(ctypes.c_int64, "at image row pitch")


class _Op(ctypes.Structure):
    _fields_ = [
        *fields(ctypes.c_int32, "kind mode halo channels a a_at b b_at to to_at tensor size kernel inputs columns"),
        *fields(ctypes.c_float, "epsilon"),
        *fields(ctypes.c_int64, "flat row plane"),
        *fields(ctypes.c_void_p, "weight bias rows offset value row_bias"),
    ]


class _Program(ctypes.Structure):
    _fields_ = [
        *fields(ctypes.c_int32, "images height width tall wide edge band ops rings"),
        *fields(ctypes.c_void_p, "op ring"),
        *fields(ctypes.c_int64, "scratch"),
    ]


def pointers(tensors: Sequence[Tensor | None]) -> Any:
    """Return the addresses of tensors; to be filled in where None."""
    addresses = (0 if tensor is None else tensor.data_ptr() for tensor in tensors)
    return (ctypes.c_void_p * len(tensors))(*addresses)


@final
class Program:
    """A chain, ready to run; holds the memory that its pointers lead to.

    ``tensors`` has the maps whose memory it needs: inputs, outputs, sinks, and those with matrices of torch's making.

    Args:
        chain: what to compute.
        stored: of which maps which channels lie in memory between chains.
        cut: into bands and items.
    """

    def __init__(self, chain: Chain, stored: Mapping[Map, tuple[int, int]], cut: Cut) -> None:
        self.cut, self.inputs, self._stored = cut, reads(chain), stored
        self.outputs = [map for map in chain.maps if map in stored]
        self.sinks = [map for map in chain.maps if map.kind in SINKS]
        self.matrices = [map for map in chain.maps if map.source is not None]
        self.tensors = [*self.inputs, *self.outputs, *self.sinks, *self.matrices]
        self._tensor = {map: i for i, map in enumerate([*self.inputs, *self.outputs, *self.sinks])}
        # What an operator itself reads or adds to, beside its rings; a map with a matrix may be stored, too.
        self._own = {map: i for i, map in enumerate(self.tensors) if map.kind in SINKS or i >= len(self._tensor)}
        self._held: list[Tensor] = []
        n, _, height, width = chain.maps[0].shape
        self.items = n * -(-width // cut.wide) * -(-height // cut.tall)
        self._layout = layout = Layout(chain, self.inputs, stored, cut)
        self._ring = {map: i for i, map in enumerate(layout.rings)}
        rings = [self._ring_of(map) for map in layout.rings]
        ops = list(self._ops(chain))
        self._op, self._rings = (_Op * len(ops))(*ops), (_Ring * len(rings))(*rings)
        self.scratch = layout.scratch
        self._program = _Program(
            *(n, height, width, cut.tall, cut.wide, layout.edge, cut.band, len(ops), len(rings)),
            *(ctypes.addressof(self._op), ctypes.addressof(self._rings), self.scratch),
        )

    def __call__(self, pointers: Any, scratch: int, threads: int) -> None:
        """Compute what the chain does on contiguous float32; ``scratch`` is the address of memory for each thread."""
        library().pk_bands(ctypes.byref(self._program), pointers, scratch, threads)

    def _ring_of(self, map: Map) -> _Ring:
        ring, (_, _, h, w) = self._layout.rings[map], map.shape
        image = 0 if ring.rows else ring.channels * h * w
        return _Ring(
            *(ring.rows, ring.margin, ring.channels, self._tensor.get(map, -1), ring.at, image),
            *(ring.channels * ring.pitch, ring.pitch),
        )

    def _ops(self, chain: Chain) -> Iterator[_Op]:
        rings = self._layout.rings
        for map, (low, high) in self.inputs.items():
            if rings[map].rows:
                base = self._stored[map][0] if map in self._stored else 0
                at = {"a_at": low - base, "to": self._ring[map], "halo": self._layout.halo[map]}
                yield _Op(kind=Kind.LOAD, channels=high - low, **at, **self._lies(map))
        for map in chain.maps:
            yield from self._join(map) if map.kind == Kind.JOIN else [self._op_of(map)]
            if map in self._stored and rings[map].rows:
                low, high = self._stored[map]
                yield _Op(kind=Kind.STORE, channels=high - low, a=self._ring[map], a_at=low, **self._lies(map))

    def _lies(self, map: Map) -> dict[str, int]:
        """Return how a map lies in memory: ours [n][h][c][w], with rows in one piece, those of torch [n][c][h][w]."""
        _, _, h, w = map.shape
        tensor = self._tensor[map]
        if map not in self._stored:
            return {"tensor": tensor, "size": map.channels * h * w, "row": w, "plane": h * w}
        channels = self._stored[map][1] - self._stored[map][0]
        return {"tensor": tensor, "size": channels * h * w, "row": channels * w, "plane": w}

    def _op_of(self, map: Map) -> _Op:
        rings = self._layout.rings
        op = _Op(
            kind=map.kind, mode=map.mode, halo=self._layout.halo[map], channels=map.channels, inputs=map.inputs,
            epsilon=map.epsilon, to=self._ring.get(map, 0), to_at=-rings[map].first if map in rings else 0,
            tensor=self._own.get(map, -1), size=map.size,
            weight=self._hold(map.weight), bias=self._hold(map.bias),
        )  # fmt: skip
        operands = [(self._ring[operand], start - rings[operand].first) for operand, start in map.operands]
        op.a, op.a_at = operands[0]
        op.b, op.b_at = operands[1] if len(operands) > 1 else (-1, 0)
        if map.kind == Kind.SPARSE:
            self._sparse(op, map)
        elif map.kind == Kind.DEPTHWISE:
            op.kernel = map.inputs
        elif map.kind == Kind.DENSE:
            op.mode, op.size = max(map.mode, 1), map.channels * map.inputs
        return op

    def _join(self, map: Map) -> Iterator[_Op]:
        """Copy one map's channels, then the other's."""
        rings, at = self._layout.rings, 0
        for place, (operand, start) in enumerate(map.operands):
            channels = channels_read(map, place)
            a, to = {"a": self._ring[operand], "a_at": start - rings[operand].first}, self._ring[map]
            halo, to_at = self._layout.halo[map], at - rings[map].first
            yield _Op(kind=Kind.AFFINE, channels=channels, halo=halo, b=-1, to=to, to_at=to_at, tensor=-1, **a)
            at += channels

    def _sparse(self, op: _Op, map: Map) -> None:
        """Put the non-zeros into the order in which the kernel comes across them."""
        assert map.weight is not None
        m, k, i, j = map.weight.nonzero(as_tuple=True)
        op.kernel = kernel = map.weight.shape[2]
        op.columns, op.flat = int(self._layout.by_columns(map)), self._layout.flat
        pitch = self._layout.rings[map.operands[0][0]].pitch
        # Column by column, each offset with its row, which is added when the rows are known: one loop for a column.
        group = m * kernel + (j if op.columns else i)
        offset = k * pitch * 4 + i if op.columns else k * pitch + j - kernel // 2
        starts = torch.zeros(map.channels * kernel + 1, dtype=torch.int32)
        starts[1:] = torch.bincount(group, minlength=len(starts) - 1).cumsum(0)
        order = group.argsort(stable=True)
        op.rows, op.offset = self._hold(starts), self._hold(offset[order].to(torch.int32))
        op.value = self._hold(map.weight[m, k, i, j][order])
        op.row_bias = op.bias or self._hold(torch.zeros(map.channels))

    def _hold(self, tensor: Tensor | None) -> int | None:
        if tensor is None:
            return None
        self._held.append(tensor.detach().contiguous())
        return self._held[-1].data_ptr()


def cuts(chain: Chain, threads: int) -> list[Cut]:
    """Return ways to cut a chain that are worth trying: whole rows in bands of about 64 pixels and more, and strips."""
    n, _, height, width = chain.maps[0].shape
    whole = min(WIDEST, -(-width // LANES) * LANES)
    ways = [(whole, 1), (whole, 2), (whole, 4)] + [(wide, 2) for wide in (512, 128) if wide < whole]
    options = []
    for wide, times in ways:
        shares = -(-threads // (n * -(-width // wide)))
        tall = -(-height // max(1, shares))
        options.append(Cut(tall, wide, min(tall, times * max(1, -(-TILE // wide)))))
    return list(dict.fromkeys(options))
