"""What happens to pictures on the web, as data: chains of resizing and compressing, each step a function of pixels.

A model of it, not of any named service. The paper's title speaks of web images; its data holds none of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from PIL import Image

from prunekit.errors import RecipeError, nearest
from prunekit_mir_l import codecs
from prunekit_mir_l.images import Pixels

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Pillow's, which average over all that a smaller pixel covers."""

_SMOOTH = ("box", "bilinear", "bicubic", "lanczos")
_RANGES = {"jpeg": (10, 90), "webp": (1, 90), "avif": (5, 75)}
_SUBSAMPLINGS = ("4:2:0", "4:2:0", "4:2:2", "4:4:4")  # most files in the world are 4:2:0
_MIX = ("jpeg", "jpeg", "jpeg", "webp", "avif")


@final
@dataclass(frozen=True)
class Resize:
    """Give the picture ``scale`` times the sides of the original one, whatever it was resized to before.

    Args:
        scale: above 0, at most 4; the last of a chain is 1.
        filter: a key of ``FILTERS``.
    """

    scale: float
    filter: str = "bicubic"

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 4:
            raise RecipeError(f"scale is {self.scale}: give a share of the original sides, above 0 and at most 4.")
        if self.filter not in FILTERS:
            raise RecipeError(f"filter {self.filter!r} is unknown: {nearest(self.filter, FILTERS)}")

    def __call__(self, pixels: Pixels, original: tuple[int, int]) -> Pixels:
        """Return the picture resized; ``original`` is (height, width) at the chain's start."""
        height, width = (max(1, round(side * self.scale)) for side in original)
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        return np.array(image.resize((width, height), FILTERS[self.filter])).reshape(height, width, -1)


@final
@dataclass(frozen=True)
class Compress:
    """Write the picture to a file and read it again.

    Args:
        codec: among ``codecs.CODECS``.
        quality: 1..100, on the codec's scale.
        subsampling: of the chroma, among ``codecs.SUBSAMPLINGS``.
        shift: rows and columns, 0..15, by which the grid of blocks lies off the picture's corner: the picture is moved
            down and right by so much, the gap filled with its edge, and moved back. So does cropping before, but the
            size stays. Blocks are of 8x8 pixels in JPEG, of 16x16 for chroma in 4:2:0.
        as_jpeg: ``quality`` is that of a JPEG file, and the codec's own is chosen for at most as many bytes.
    """

    codec: str
    quality: int
    subsampling: str = "4:2:0"
    shift: tuple[int, int] = (0, 0)
    as_jpeg: bool = False

    def __post_init__(self) -> None:
        codecs.refuse(self.codec, self.quality, self.subsampling)
        if not all(0 <= by < 16 for by in self.shift):
            raise RecipeError(f"shift is {self.shift}: give rows and columns from 0 to 15.")

    def __call__(self, pixels: Pixels) -> Pixels:
        """Return the picture as it is read from its file."""
        down, right = self.shift
        moved = np.pad(pixels, ((down, 0), (right, 0), (0, 0)), mode="edge")
        quality = self.quality
        if self.as_jpeg:
            size = len(codecs.encode(moved, "jpeg", quality, self.subsampling))
            quality = codecs.at_bytes(moved, self.codec, size, self.subsampling)
        data = codecs.encode(moved, self.codec, quality, self.subsampling)
        return codecs.decode(data, channels=pixels.shape[2])[down:, right:]


Step = Resize | Compress


def apply(steps: Sequence[Step], pixels: Pixels) -> Pixels:
    """Return what a chain of steps makes of a picture: uint8, of the same shape.

    Args:
        steps: in order; where any resizes, the last that does has scale 1.
        pixels: the picture: uint8, shape (height, width, 3 or 1).

    Raises:
        RecipeError: the chain ends at another size.

    Example:
        >>> chain = (Resize(0.5, "lanczos"), Compress("jpeg", 30), Resize(1))
        >>> apply(chain, np.zeros((33, 20, 3), np.uint8)).shape
        (33, 20, 3)
    """
    made = pixels
    for step in steps:
        made = step(made) if isinstance(step, Compress) else step(made, (pixels.shape[0], pixels.shape[1]))
    if made.shape != pixels.shape:
        raise RecipeError(f"{list(steps)} ends at another size than it began with: end it with Resize(1).")
    return made


def draw(rng: np.random.Generator) -> tuple[Step, ...]:
    """Draw a chain, as the task ``"web"`` is trained on.

    A quarter each: one file; a JPEG file and another, with grids together or apart; resizing, half of it with a file;
    an upload (resize, compress, resize, compress).
    """
    kind = rng.choice(("once", "twice", "resized", "upload"))
    if kind == "once":
        return (_compress(rng),)
    if kind == "twice":
        shift = (int(rng.integers(16)), int(rng.integers(16))) if rng.random() < 0.5 else (0, 0)
        return _compress(rng, "jpeg"), _compress(rng, shift=shift)
    if kind == "resized":
        return _resize(rng), *([_compress(rng)] if rng.random() < 0.5 else []), Resize(1, str(rng.choice(_SMOOTH)))
    return _resize(rng), _compress(rng, "jpeg"), _resize(rng), _compress(rng), Resize(1, str(rng.choice(_SMOOTH)))


def draw_jpeg(rng: np.random.Generator, lowest: int, highest: int) -> tuple[Step, ...]:
    """Draw one JPEG file, as the task ``"jpeg"`` is trained on: a quality of the range, and any subsampling."""
    return (Compress("jpeg", int(rng.integers(lowest, highest + 1)), str(rng.choice(_SUBSAMPLINGS))),)


def _compress(rng: np.random.Generator, codec: str | None = None, shift: tuple[int, int] = (0, 0)) -> Compress:
    codec = codec or str(rng.choice(_MIX))
    lowest, highest = _RANGES[codec]
    subsampling = "4:2:0" if codec == "webp" else str(rng.choice(_SUBSAMPLINGS))
    return Compress(codec, int(rng.integers(lowest, highest + 1)), subsampling, shift)


def _resize(rng: np.random.Generator) -> Resize:
    return Resize(round(float(rng.uniform(0.5, 0.95)), 2), str(rng.choice(_SMOOTH)))
