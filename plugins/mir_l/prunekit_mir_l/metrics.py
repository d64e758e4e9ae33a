"""PSNR and SSIM by the published protocol; the protocol's name travels with every number."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from skimage.metrics import structural_similarity

Floats = npt.NDArray[np.float32]

PROTOCOL = "RGB, float, clipped to [0, 1], per image; SSIM uniform 7x7"
"""How both metrics are computed here; a mean over images is the mean of their metrics."""

GREY_PROTOCOL = f"grey (BT.601 luma, 8 bits){PROTOCOL.removeprefix('RGB')}"
"""The same for networks that restore grey images; not comparable."""


def psnr(image: Floats, target: Floats) -> float:
    """Return the peak signal-to-noise ratio in dB, of peak 1; infinite for equal images.

    Args:
        image: float of shape (height, width, channels); clipped to [0, 1] here.
        target: the same, in [0, 1].

    Example:
        >>> round(psnr(np.full((8, 8, 3), 0.5, np.float32), np.full((8, 8, 3), 0.6, np.float32)), 4)
        20.0
    """
    error = float(np.mean((image.clip(0, 1).astype(np.float64) - target) ** 2))
    return -10 * math.log10(error) if error else math.inf


def ssim(image: Floats, target: Floats) -> float:
    """Return the structural similarity, at most 1: the mean over channels and all pixels but a border of 3.

    Args:
        image: float of shape (height, width, channels), both sides at least 7; clipped to [0, 1] here.
        target: the same, in [0, 1].

    Reference:
        Wang et al. 2004, with a uniform 7x7 window, sample covariance, K1 0.01, K2 0.03 (scikit-image's defaults).
    """
    return float(structural_similarity(image.clip(0, 1), target, channel_axis=-1, data_range=1.0))


def floats(pixels: npt.NDArray[np.uint8]) -> Floats:
    """Return uint8 pixels as float32 in [0, 1]: divided in float64, then rounded."""
    return (pixels / 255).astype(np.float32)
