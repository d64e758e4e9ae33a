"""What is done to clean images: noise as published, and synthetic rain and haze; each a function of its generator.

Images are uint8 of shape (height, width, 3); noise falls on grey ones, of shape (height, width, 1), too. Rain and haze
here are made up to be plausible and quick: figures on them are not comparable with figures on any published set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from prunekit_mir_l.images import Pixels


@final
@dataclass(frozen=True)
class Window:
    """Where a crop lies in its image, so that haze thickens over the whole image and not over the crop."""

    top: int
    left: int
    height: int
    width: int
    image: tuple[int, int]

    def cut(self, pixels: Pixels) -> Pixels:
        """Return the crop of an image of shape (height, width, channels)."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]

    def around(self, *, margin: int = 16, grid: int = 16) -> Window:
        """Return a larger window: by ``margin`` pixels on each side, on to the image's ``grid``, or to its edge."""
        top, left = (max(0, start - margin) // grid * grid for start in (self.top, self.left))
        ends = (self.top + self.height, self.left + self.width)
        bottom, right = (
            min(side, -(-(end + margin) // grid) * grid) for end, side in zip(ends, self.image, strict=True)
        )
        return Window(top, left, bottom - top, right - left, self.image)

    def inside(self, outer: Window) -> Window:
        """Return where this window lies in an image that is cut to ``outer``."""
        return Window(
            self.top - outer.top, self.left - outer.left, self.height, self.width, (outer.height, outer.width)
        )


def random_window(image: tuple[int, int], patch: int, rng: np.random.Generator) -> Window:
    """Draw a square window of ``patch`` pixels inside an image of (height, width)."""
    top, left = (int(rng.integers(side - patch + 1)) for side in image)
    return Window(top, left, patch, patch, image)


def centre_window(image: tuple[int, int], *, multiple: int = 16, limit: int | None = None) -> Window:
    """Return the largest centred window whose sides are multiples of ``multiple``, at most ``limit`` pixels."""
    height, width = (min(side, limit or side) // multiple * multiple for side in image)
    return Window((image[0] - height) // 2, (image[1] - width) // 2, height, width, image)


def turn(pixels: Pixels, which: int) -> Pixels:
    """Apply one of the eight symmetries of the square: 0..3 turn by quarters, 4..7 mirror too; 0 changes nothing."""
    turned = np.rot90(pixels, which % 4)
    return np.flipud(turned) if which >= 4 else turned


def noise(clean: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    """Add Gaussian noise of ``sigma`` on the 0..255 scale, clip, and truncate to whole numbers.

    Reference:
        arXiv 2510.14463, published code: ``uint8(clip(x + sigma * N(0, 1), 0, 255))``, truncated, not rounded.
    """
    return (clean + sigma * rng.standard_normal(clean.shape)).clip(0, 255).astype(np.uint8)


def rain(clean: Pixels, rng: np.random.Generator) -> Pixels:
    """Add bright streaks that fall side by side: sparse drops, smeared along one direction.

    Strength, slant, length and density are drawn anew for each image; the result is mostly 20 to 30 dB from it.
    """
    height, width = clean.shape[:2]
    length, slant = int(rng.integers(11, 31)), rng.uniform(-0.6, 0.6)
    falls = rng.random((height + length, width + length), dtype=np.float32)
    drops = np.where(falls < rng.uniform(0.002, 0.008), rng.random(falls.shape, dtype=np.float32), np.float32(0))
    streaks = np.zeros((height, width), np.float32)
    for step in range(length):
        # A streak is a row of shifted drops, between two columns where it is slanted, and fades at both ends.
        fade = np.sin(np.pi * (step + 1) / (length + 1))
        aside = slant * (step - length / 2) + length / 2
        column, part = int(aside), aside % 1
        rows = drops[step : step + height]
        streaks += fade * (1 - part) * rows[:, column : column + width]
        streaks += fade * part * rows[:, column + 1 : column + 1 + width]
    light = rng.uniform(120, 220) * streaks.clip(0, 1)
    return _pixels(clean + light[:, :, None])


def haze(clean: Pixels, rng: np.random.Generator, *, window: Window | None = None) -> Pixels:
    """Lay haze over an image: light scattered in, the scene dimmed, both by depth; the result is mostly 10 to 20 dB.

    The depth is that of a ground rising to the horizon, uneven and tilted at random. The image gives none.

    Args:
        clean: uint8, shape (height, width, 3).
        rng: its draws do not depend on the image's size.
        window: where ``clean`` lies in the whole image; None where it is whole.

    Reference:
        Koschmieder's law: hazy = clean * t + airlight * (1 - t), t = exp(-beta * depth).
    """
    height, width = clean.shape[:2]
    window = window or Window(0, 0, height, width, image=(height, width))
    beta, white, tint = rng.uniform(0.5, 1.3), rng.uniform(0.75, 1.0), rng.uniform(-0.03, 0.03, 3)
    seen = np.exp(-beta * _depth(window, rng))[:, :, None].astype(np.float32)
    airlight = (255 * (white + tint).clip(0, 1)).astype(np.float32)
    return _pixels(clean * seen + airlight * (1 - seen))


def _depth(window: Window, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return depths between about 0.3 and 1.5, shape (height, width), evaluated at the window's place in its image."""
    down = ((window.top + np.arange(window.height)) / window.image[0])[:, None]
    along = ((window.left + np.arange(window.width)) / window.image[1])[None, :]
    depth = 0.4 + 0.9 * (1 - down) ** rng.uniform(0.7, 2.0) + rng.uniform(-0.2, 0.2) * (along - 0.5)
    for _ in range(3):
        (waves_down, waves_along), phase = rng.uniform(-3, 3, 2), rng.uniform(0, 2 * np.pi)
        depth = depth + 0.06 * np.sin(2 * np.pi * (waves_down * down + waves_along * along) + phase)
    return depth.clip(0.2, None)


def _pixels(values: npt.NDArray[np.floating]) -> Pixels:
    whole: Pixels = np.rint(values).clip(0, 255).astype(np.uint8)
    return whole
