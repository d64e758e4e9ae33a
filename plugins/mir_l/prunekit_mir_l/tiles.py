"""Restore an image in tiles that overlap and are blended, so that memory does not grow with the image.

Axes: b batch, c channels, h height, w width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from prunekit.imaging import ImageCall
from prunekit_mir_l.images import Floats, Pixels

Model = Callable[[torch.Tensor], torch.Tensor] | nn.Module
Progress = Callable[[int, int], None]
"""Told how many tiles are done, and of how many."""


@final
@dataclass(frozen=True)
class Tiling:
    """How an axis of an image is cut into tiles of one length, each overlapping the next.

    Args:
        length: of the axis, in pixels.
        tile: pixels of a tile; the whole axis where that is shorter.
        overlap: pixels that neighbours share at least; less than half a tile.

    Example:
        >>> Tiling(100, 40, 10).starts
        (0, 30, 60)
        >>> Tiling(30, 40, 10).starts
        (0,)
    """

    length: int
    tile: int
    overlap: int

    @property
    def size(self) -> int:
        """Pixels of each tile."""
        return min(self.tile, self.length)

    @property
    def starts(self) -> tuple[int, ...]:
        """First pixel of each tile: evenly spread, the first and the last flush with the ends."""
        room = self.length - self.size
        count = -(-room // max(1, self.size - self.overlap))
        return tuple(round(i * room / count) for i in range(count + 1)) if count else (0,)

    def weights(self) -> list[Floats]:
        """Return how much each pixel of each tile counts: together 1 everywhere, falling to the ends."""
        starts, size = self.starts, self.size
        along = np.arange(size, dtype=np.float32) + 0.5
        raw: list[Floats] = []
        for place, start in enumerate(starts):
            before = size - (start - starts[place - 1]) if place else 0
            after = size - (starts[place + 1] - start) if place + 1 < len(starts) else 0
            rise = along / before if before > 0 else 1
            fall = (size - along) / after if after > 0 else 1
            raw.append(np.minimum(1, np.minimum(rise, fall)).astype(np.float32) * np.ones(size, np.float32))
        total = np.zeros(self.length, np.float32)  # not 1 where three tiles meet
        for start, weight in zip(starts, raw, strict=True):
            total[start : start + size] += weight
        return [weight / total[start : start + size] for start, weight in zip(starts, raw, strict=True)]


def tile_pixels(wanted: int, call: ImageCall) -> int:
    """Return the side of tiles: ``wanted`` rounded up to what the network's sides must divide by."""
    return max(call.minimum, -(-wanted // call.multiple) * call.multiple)


def in_tiles(
    model: Model,
    call: ImageCall,
    seen_hwc: Pixels,
    *,
    tile: int,
    overlap: int,
    progress: Progress = lambda done, of: None,
) -> Pixels:
    """Return the restored image, tile by tile; only one row of tiles is held as floats at a time.

    Args:
        model: the network, in eval mode.
        call: how it wants to be called.
        seen_hwc: the image, in the network's channels.
        tile: side of the tiles in pixels; an image that fits into one is restored as a whole.
        overlap: pixels that neighbouring tiles share at least.
        progress: is told how far it is.

    Returns:
        Clipped to [0, 1] and rounded to 8 bits, same shape.
    """
    height, width, channels = seen_hwc.shape
    down, along = Tiling(height, tile, overlap), Tiling(width, tile, overlap)
    restored: Pixels = np.empty_like(seen_hwc)
    rest: Floats = np.zeros((0, width, channels), np.float32)  # what tiles above gave to rows that are not whole yet
    done, of = 0, len(down.starts) * len(along.starts)
    down_weights, along_weights = down.weights(), along.weights()
    for row, top in enumerate(down.starts):
        band: Floats = np.zeros((down.size, width, channels), np.float32)
        for column, left in enumerate(along.starts):
            made = restored_floats(model, call, seen_hwc[top : top + down.size, left : left + along.size])
            band[:, left : left + along.size] += made * along_weights[column][None, :, None]
            done += 1
            progress(done, of)
        band *= down_weights[row][:, None, None]
        band[: len(rest)] += rest
        whole = down.starts[row + 1] - top if row + 1 < len(down.starts) else down.size
        restored[top : top + whole] = as_pixels(band[:whole])
        rest = band[whole:]
    return restored


def windows(seen_hwc: Pixels, *, tile: int, overlap: int) -> list[Pixels]:
    """Return the image's tiles, row by row."""
    down, along = Tiling(seen_hwc.shape[0], tile, overlap), Tiling(seen_hwc.shape[1], tile, overlap)
    return [seen_hwc[top : top + down.size, left : left + along.size] for top in down.starts for left in along.starts]


def restored_floats(model: Model, call: ImageCall, seen_hwc: Pixels) -> Floats:
    """Return what the network makes of an image in its channels, clipped to [0, 1], as float32."""
    x_bchw = torch.from_numpy(np.ascontiguousarray(seen_hwc)).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        y_bchw = call(model, x_bchw).clamp(0, 1)  # type: ignore[arg-type]
    floats: Floats = y_bchw[0].permute(1, 2, 0).float().cpu().numpy()
    return floats


def as_pixels(floats: npt.NDArray[np.float32]) -> Pixels:
    """Return floats in [0, 1] as 8 bits, to the nearest."""
    pixels: Pixels = np.rint(floats * 255).clip(0, 255).astype(np.uint8)
    return pixels
