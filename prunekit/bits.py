"""Masks as bits, eight to a byte, the first in the lowest bit; how masks stand in every file."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prunekit.errors import MaskError


def pack(mask: Tensor) -> Tensor:
    """Return the bits of a bool tensor in row-major order: uint8, one axis of ceil(n / 8) bytes, padded with zeros.

    Example:
        >>> pack(torch.tensor([[True, False, False], [True, True, False]])).tolist()
        [25]
    """
    return torch.from_numpy(np.packbits(mask.numpy(), axis=None, bitorder="little"))


def unpack(packed: Tensor, shape: Sequence[int], *, name: str) -> Tensor:
    """Return the bool tensor of this shape that `pack` packed.

    Raises:
        MaskError: another number of bytes than the shape needs, or set bits past its end; ``name`` is in the message.

    Example:
        >>> unpack(torch.tensor([25], dtype=torch.uint8), [2, 3], name="weight").tolist()
        [[True, False, False], [True, True, False]]
    """
    count = math.prod(shape)
    if (
        packed.dtype != torch.uint8
        or packed.numel() != (count + 7) // 8
        or any(not 0 <= side < 2**48 for side in shape)
    ):
        raise MaskError(f"the bits of mask {name!r} are damaged: {packed.numel()} bytes for shape {tuple(shape)}.")
    if count % 8 and int(packed[-1]) >> count % 8:
        raise MaskError(f"the bits of mask {name!r} are damaged: some lie past the end of shape {tuple(shape)}.")
    bits = np.unpackbits(packed.numpy(), count=count, bitorder="little")
    return torch.from_numpy(bits.view(np.bool_)).reshape(tuple(shape))


def packed_bytes(count: int, kept: int, itemsize: int) -> int:
    """Return the bytes of a tensor in a ticket file: a bit for each weight and the kept values, or all of it if uncut.

    Example:
        >>> packed_bytes(100, 10, 4), packed_bytes(100, 100, 4)
        (53, 400)
    """
    return (0 if kept == count else (count + 7) // 8) + kept * itemsize
