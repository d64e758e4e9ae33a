"""A network that restores pictures of any size: whole where memory allows it, else in tiles."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import nn

import prunekit as pk
from prunekit.environment import keep_heap
from prunekit.errors import RecipeError, RunError
from prunekit.imaging import ImageCall, image_call
from prunekit.native import kernels
from prunekit_mir_l.images import Pixels, grey
from prunekit_mir_l.memory import available_bytes, peak_bytes
from prunekit_mir_l.tiles import Progress, as_pixels, in_tiles, restored_floats, tile_pixels, windows
from prunekit_mir_l.whole_image import of_whole_image

TILE = 320
"""Pixels a side of tiles that nobody asked for: PromptIR takes about a gigabyte for one."""

FAST_TILE = 256
"""The same with the sparse kernels: timing every operator before the first tile takes more memory than a pass."""

OVERLAP = 32
"""Pixels that neighbouring tiles share at least."""

_PROBE = 192
_SHARE = 0.7  # of the available memory that a whole image may take
_UNKNOWN = 512 * 512  # pixels restored whole where the system tells no memory: PromptIR takes 2.2 GB for them


@final
@dataclass(frozen=True)
class Restorer:
    """Restores images with a network.

    Args:
        model: the network, in eval mode on the CPU.
        call: how it wants to be called.
        tile: side of the tiles in pixels; None restores images whole where memory allows it.
        fast: leave out the zeros, with the compiled kernels.
    """

    model: nn.Module
    call: ImageCall
    tile: int | None = None
    fast: bool = False

    def needs_tiles(self, height: int, width: int) -> bool:
        """Tell whether an image is larger than the tiles that are asked for, or than memory would bear."""
        if self.tile is not None:
            return max(height, width) > tile_pixels(self.tile, self.call)
        available = available_bytes()
        if available is None or height * width <= _PROBE**2:
            return height * width > _UNKNOWN
        return height * width * self._bytes_per_pixel > _SHARE * available

    def __call__(self, pixels_hwc: Pixels, progress: Progress = lambda done, of: None) -> Pixels:
        """Return the restored image: RGB, or one channel where the network restores grey ones.

        Args:
            pixels_hwc: RGB.
            progress: is told how many tiles are done, and of how many.
        """
        seen_hwc = grey(pixels_hwc) if self.call.channels == 1 else pixels_hwc
        keep_heap()  # else more than a third of the time goes into page faults
        if not self.needs_tiles(*seen_hwc.shape[:2]):
            progress(0, 1)
            restored = as_pixels(restored_floats(self._runner, self.call, seen_hwc))
            progress(1, 1)
            return restored
        tile = tile_pixels(self.tile or (FAST_TILE if self.fast else TILE), self.call)
        overlap = min(OVERLAP, tile // 4)
        parts = windows(seen_hwc, tile=tile, overlap=overlap)
        model = of_whole_image(self.model, self.call, parts)
        runner = self._runner if model is self.model else self._compiled(model, parts[0])
        return in_tiles(runner, self.call, seen_hwc, tile=tile, overlap=overlap, progress=progress)

    @functools.cached_property
    def _runner(self) -> nn.Module:
        return self._compiled(self.model, np.zeros((128, 128, self.call.channels), np.uint8))

    def _compiled(self, model: nn.Module, like_hwc: Pixels) -> nn.Module:
        if not self.fast or kernels() is None:
            return model
        example_bchw = torch.from_numpy(like_hwc.copy()).permute(2, 0, 1)[None].float() / 255
        compiled: nn.Module = pk.sparse.compile(model, self.call.input(model, example_bchw))
        return compiled

    @functools.cached_property
    def _bytes_per_pixel(self) -> float:
        """What a small image takes, by trying; a larger one takes as much for each pixel."""
        probe = np.zeros((_PROBE, _PROBE, self.call.channels), np.uint8)
        return peak_bytes(lambda: restored_floats(self.model, self.call, probe)) / _PROBE**2


def load(
    source: Path, *, stage: str | None = None, network: str | None = None, tile: int | None = None, fast: bool = False
) -> Restorer:
    """Return a ticket's network, in eval mode on the CPU, as a restorer.

    Args:
        source: a run directory of a restoration network, a ticket file, or a weights file with ``network``.
        stage: name of a finished stage of a run; the last by default.
        network: name of the network, where the source does not say it or is not to be believed.
        tile: see ``Restorer``.
        fast: see ``Restorer``.

    Raises:
        RunError: it does not turn images into images of the same size.
        PruneKitError: as ``prunekit.load`` and ``Ticket.model``.
    """
    ticket = pk.load(source, stage=stage, network=network)
    if not ticket.trained:
        raise RunError(f"{source} is the name of a network that nobody trained; give a run or a file.")
    model = ticket.model()
    try:
        return Restorer(model, image_call(model), tile, fast)
    except RecipeError as error:
        raise RunError(f"{source} holds a network that restores no images: {error}") from error
