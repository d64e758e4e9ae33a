"""Depthwise convolutions in training; the one in a gated feed-forward layer with GELU and the product, all at once.

Axes: b batch, c channels, h height, w width.
"""

from __future__ import annotations

import ctypes
from typing import Any, final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from prunekit.native import kernels, library

_TAPS = 9
_SCRATCH_ROWS = 13
_BLOCK = 64  # channels that the kernel takes at a time


def depthwise(x_bchw: Tensor, taps: Tensor) -> Tensor:
    """Return the depthwise 3x3 convolution of a map, with zeros around it.

    The compiled kernel goes back in one pass, where torch's operators take two. It takes float32 on the CPU, and not
    where torch traces; all else is left to torch.

    Args:
        x_bchw: the map; best channels last.
        taps: the 3x3 weights, shape (channels, 1, 3, 3).

    Returns:
        As many channels, same type, channels last. It can be differentiated twice.
    """
    return _convolved(x_bchw, taps, 1)


def gated(x_bchw: Tensor, taps: Tensor) -> Tensor:
    """Return the exact (erf) GELU of the first half of the channels of ``depthwise(x, taps)`` times the second half.

    The compiled kernel reads and writes each map once, and keeps for the way back no more than its arguments, where
    torch's operators read, write and keep several maps.

    Args:
        x_bchw: the map, of an even number of channels; best channels last.
        taps: the 3x3 weights, shape (channels, 1, 3, 3).

    Returns:
        Half the channels, same type, channels last. It can be differentiated twice.
    """
    return _convolved(x_bchw, taps, 2)


def by_torch(x_bchw: Tensor, taps: Tensor, halves: int) -> Tensor:
    """Return `depthwise` (1) or `gated` (2) by torch's operators."""
    y_bchw = F.conv2d(x_bchw, taps, padding=1, groups=taps.shape[0])
    if halves == 1:
        return y_bchw
    gate_bchw, value_bchw = y_bchw.chunk(2, dim=1)
    return F.gelu(gate_bchw) * value_bchw


def _convolved(x_bchw: Tensor, taps: Tensor, halves: int) -> Tensor:
    # Tracing is asked about first: torch.compile warns of the cache around what looks for the kernels.
    if _traced() or kernels() is None or not (_plain(x_bchw) and _plain(taps) and _fits(x_bchw, taps, halves)):
        return by_torch(x_bchw, taps, halves)
    # Laid out before the function: what it keeps must be its arguments, or second derivatives would not find them.
    x_bchw = x_bchw.contiguous(memory_format=torch.channels_last)
    y_bchw: Tensor = _Convolved.apply(x_bchw, taps.contiguous(), halves)
    return y_bchw


def _plain(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.layout == torch.strided


def _fits(x_bchw: Tensor, taps: Tensor, halves: int) -> bool:
    return x_bchw.dim() == 4 and x_bchw.shape[1] % halves == 0 and taps.shape == (x_bchw.shape[1], 1, 3, 3)


def _traced() -> bool:
    return (
        torch.compiler.is_compiling()
        or is_in_torch_dispatch_mode()
        or torch._C._are_functorch_transforms_active()
        or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    )


class _Call(ctypes.Structure):
    """What the kernel is given (``depthwise`` in ``kernels/depthwise.h``)."""

    _fields_ = [(name, ctypes.c_int32) for name in ("images", "height", "width", "halves", "channels")] + [
        (name, ctypes.c_void_p) for name in ("map", "taps", "out", "slope", "map_slope", "tap_slopes")
    ]


@final
class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, halves: int) -> Tensor:
        images, channels, height, width = x.shape
        shape = (images, channels // halves, height, width)
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        _run(False, halves, map=x, taps=taps, out=out)
        ctx.save_for_backward(x, taps)
        ctx.halves = halves
        return out

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, taps = ctx.saved_tensors
        if (
            torch.is_grad_enabled() or _traced() or torch._C._functorch.is_legacy_batchedtensor(slope)
        ):  # the slopes are differentiated themselves, or many at a time
            return (*_slopes_by_torch(ctx, x, taps, slope), None)
        x = x.contiguous(memory_format=torch.channels_last)  # whoever saved it may have laid it out anew
        slope = slope.contiguous(memory_format=torch.channels_last)
        of_map, of_taps = torch.empty_like(x), x.new_empty(len(x), ctx.halves, _TAPS, slope.shape[1])
        _run(True, ctx.halves, map=x, taps=taps, slope=slope, map_slope=of_map, tap_slopes=of_taps)
        return of_map, of_taps.sum(0).transpose(1, 2).reshape(taps.shape), None


def _slopes_by_torch(ctx: Any, x: Tensor, taps: Tensor, slope: Tensor) -> list[Tensor | None]:
    """Return the slopes of those of the two that have one, as torch's operators make them."""
    wanted = [tensor for tensor, needed in zip((x, taps), ctx.needs_input_grad, strict=False) if needed]
    with torch.enable_grad():
        result = by_torch(x, taps, ctx.halves)
    found = iter(torch.autograd.grad(result, wanted, slope, create_graph=torch.is_grad_enabled()))
    return [next(found) if needed else None for needed in ctx.needs_input_grad[:2]]


def _run(backward: bool, halves: int, **tensors: Tensor) -> None:
    images, channels, height, width = tensors["map"].shape
    threads = torch.get_num_threads()
    scratch = tensors["map"].new_empty(threads * _SCRATCH_ROWS * (width + 2) * _BLOCK)
    addresses = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    call = _Call(images, height, width, halves, channels // halves, **addresses)
    library().pk_depthwise(ctypes.byref(call), int(backward), scratch.data_ptr(), threads)
