"""Products of a sparse weight with dense maps: the plan for one input shape, and the call into the kernels.

Axes: n images, g groups, m output and k input channels of a group, h height, w width, t tokens.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from prunekit.native import library

TILE = 64
BLOCK = 2**16
"""Floats that a block holds, where one row of outputs needs no more: 256 KiB stay in the second-level cache."""


class _Weights(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("rows", "offset", "value", "bias")]


class _Shape(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int32)
        for name in (
            *("images", "groups", "inputs", "outputs", "height", "width", "out_height", "out_width"),
            *("stride_h", "stride_w", "pad_h", "pad_w", "band_rows", "band_cols", "block_rows", "block_cols"),
        )
    ]


@final
@dataclass(frozen=True)
class Geometry:
    """How a convolution moves over its input; pairs are (height, width)."""

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def out(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the output."""
        sizes = zip((height, width), self.kernel, self.stride, self.padding, self.dilation, strict=True)
        down, across = ((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in sizes)
        return down, across


@final
class Convolution:
    """A sparse convolution of contiguous (N, C, H, W) maps of one shape; holds the memory that its pointers lead to.

    Args:
        weight_mkhw: float32, zeros where it is cut; of all groups.
        bias: float32 or None.
        geometry: of the convolution.
        shape: of the maps.
    """

    def __init__(self, weight_mkhw: Tensor, bias: Tensor | None, geometry: Geometry, shape: tuple[int, ...]) -> None:
        images, _, height, width = shape
        outputs, inputs = weight_mkhw.shape[0] // geometry.groups, weight_mkhw.shape[1]
        self._out = (images, weight_mkhw.shape[0], *geometry.out(height, width))
        if geometry == Geometry(groups=geometry.groups):
            height, width = 1, height * width  # rows mean nothing to a 1x1 convolution
        out = geometry.out(height, width)
        reach = [(k - 1) * d // s for k, d, s in zip(geometry.kernel, geometry.dilation, geometry.stride, strict=True)]
        rows, cols = _band(out, reach, BLOCK // (inputs * geometry.stride[0] * geometry.stride[1]))
        block = (rows + reach[0], cols + reach[1])
        self._shape = _Shape(
            *(images, geometry.groups, inputs, outputs, height, width, *out),
            *(*geometry.stride, *geometry.padding, rows, cols, *block),
        )
        self._scratch = inputs * geometry.stride[0] * geometry.stride[1] * block[0] * block[1] + TILE
        parts = weight_mkhw.split(outputs)
        biases = [None] * len(parts) if bias is None else bias.split(outputs)
        self._held = [_non_zeros(part, geometry, block, bias) for part, bias in zip(parts, biases, strict=True)]
        self._weights = (_Weights * len(parts))(*map(_pointers, self._held))

    def __call__(self, x_nchw: Tensor) -> Tensor:
        """Return the convolution; needs the kernels."""
        threads = torch.get_num_threads()
        y_nchw, scratch = _floats(*self._out), _floats(threads * self._scratch)
        library().pk_conv(
            *(ctypes.byref(self._shape), self._weights, x_nchw.data_ptr(), y_nchw.data_ptr()),
            *(scratch.data_ptr(), self._scratch, threads),
        )
        return y_nchw


@final
class Product:
    """A sparse matrix product with contiguous maps whose channels lie side by side: (..., K) to (..., M).

    Args:
        weight_mk: float32, zeros where it is cut.
        bias: float32 or None.
    """

    def __init__(self, weight_mk: Tensor, bias: Tensor | None) -> None:
        self._outputs, self._inputs = weight_mk.shape
        self._held = _non_zeros(weight_mk[:, :, None, None], Geometry(), (1, TILE), bias)
        self._weights = _pointers(self._held)

    def __call__(self, x_tk: Tensor) -> Tensor:
        """Return the product; needs the kernels."""
        threads, size = torch.get_num_threads(), self._inputs * TILE
        y_tm, scratch = _floats(*x_tk.shape[:-1], self._outputs), _floats(threads * size)
        library().pk_linear(
            *(x_tk.numel() // self._inputs, self._inputs, self._outputs, ctypes.byref(self._weights)),
            *(x_tk.data_ptr(), y_tm.data_ptr(), scratch.data_ptr(), size, threads),
        )
        return y_tm


def _floats(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32)  # whatever the default


def _band(out: tuple[int, int], reach: list[int], budget: int) -> tuple[int, int]:
    """Return how many rows and columns of outputs one block serves, so that a channel's part has ``budget`` floats.

    Whole rows where some fit, else pieces of one row of whole tiles: at least one tile, however many the channels.
    """
    cols = budget // (1 + reach[0]) - reach[1]
    cols = out[1] if out[1] <= cols else min(out[1], max(TILE, cols // TILE * TILE))
    rows = budget // (cols + reach[1]) - reach[0]
    return max(1, min(out[0], rows)), cols


def _non_zeros(
    weight_mkhw: Tensor, geometry: Geometry, block: tuple[int, int], bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return row starts, offsets into a block, values and bias of one group's weights."""
    m, k, y, x = weight_mkhw.nonzero(as_tuple=True)
    y, x = y * geometry.dilation[0], x * geometry.dilation[1]
    down, across = geometry.stride
    phase = (k * down + y % down) * across + x % across
    offset = (phase * block[0] + y // down) * block[1] + x // across
    rows = torch.zeros(len(weight_mkhw) + 1, dtype=torch.int32)
    rows[1:] = torch.bincount(m, minlength=len(weight_mkhw)).cumsum(0)
    value = weight_mkhw[weight_mkhw != 0].contiguous()
    return rows, offset.to(torch.int32), value, None if bias is None else bias.contiguous()


def _pointers(held: tuple[Tensor, Tensor, Tensor, Tensor | None]) -> _Weights:
    return _Weights(*(None if tensor is None else tensor.data_ptr() for tensor in held))
