"""How near an image is to its target; the protocol's name travels with every number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import numpy.typing as npt
from skimage.metrics import structural_similarity

from prunekit.errors import DataError, RecipeError, nearest
from prunekit_mir_l import perceptual
from prunekit_mir_l.images import Floats
from prunekit_mir_l.perceptual import Score

PROTOCOL = "RGB, float, clipped to [0, 1], per image; SSIM uniform 7x7"
"""The published protocol; a mean over images is the mean of their metrics, here and below."""

GREY_PROTOCOL = f"grey (BT.601 luma, 8 bits){PROTOCOL.removeprefix('RGB')}"
"""The same for networks that restore grey images; not comparable."""

Y_PROTOCOL = "Y (BT.601, 16 to 235) of RGB in 8 bits, as BasicSR, per image; SSIM Gaussian 11x11"
"""Luma as BasicSR measures it, no border cropped; not comparable either."""

_Y = np.array([65.481, 128.553, 24.966]) / 255


@final
@dataclass(frozen=True)
class Metric:
    """One way to compare an image with its target.

    Args:
        name: e.g. ``"psnr_y"``.
        protocol: exactly how it is computed.
        score: takes image and target, float of shape (height, width, channels).
        higher_is_better: which way is up.
        side: pixels that each side must have at least.
        in_colour: whether it is defined for RGB only.
    """

    name: str
    protocol: str
    score: Score
    higher_is_better: bool = True
    side: int = 1
    in_colour: bool = False

    def __call__(self, image: Floats, target: Floats) -> float:
        """Return the metric of one image.

        Args:
            image: float of shape (height, width, channels), in [0, 1] or not.
            target: the same, in [0, 1].

        Raises:
            DataError: a side is too short.
        """
        if min(image.shape[:2]) < self.side:
            size = f"{image.shape[1]} x {image.shape[0]}"
            raise DataError(f"{self.name} needs images of at least {self.side} x {self.side} pixels, not {size}.")
        return self.score(image, target)


def psnr(image: Floats, target: Floats) -> float:
    """Return the peak signal-to-noise ratio in dB, of peak 1; infinite for equal images.

    Args:
        image: float of shape (height, width, channels); clipped to [0, 1] here.
        target: the same, in [0, 1].

    Example:
        >>> round(psnr(np.full((8, 8, 3), 0.5, np.float32), np.full((8, 8, 3), 0.6, np.float32)), 4)
        20.0
    """
    return _psnr(image.clip(0, 1).astype(np.float64), target, peak=1)


def ssim(image: Floats, target: Floats) -> float:
    """Return the structural similarity, at most 1: the mean over channels and all pixels but a border of 3.

    Args:
        image: float of shape (height, width, channels), both sides at least 7; clipped to [0, 1] here.
        target: the same, in [0, 1].

    Reference:
        Wang et al. 2004, with a uniform 7x7 window, sample covariance, K1 0.01, K2 0.03 (scikit-image's defaults).
    """
    return float(structural_similarity(image.clip(0, 1), target, channel_axis=-1, data_range=1.0))


def luma(image: Floats) -> npt.NDArray[np.float64]:
    """Return the luma of an image rounded to 8 bits: not rounded again, 16 for black and 235 for white.

    Args:
        image: float of shape (height, width, 3), RGB; clipped to [0, 1] here.

    Returns:
        Shape (height, width).

    Example:
        >>> luma(np.array([[[0, 0, 0], [1, 1, 1], [1, 0, 0]]], np.float32)).round(3).tolist()
        [[16.0, 235.0, 81.481]]

    Reference:
        ITU-R BT.601; BasicSR's ``bgr2ycbcr(y_only=True)``, which keeps 32 bits of it where this keeps 64.
    """
    pixels = np.ascontiguousarray(image.clip(0, 1), np.float64)  # sums of other strides differ in their last bits
    return 16 + np.round(pixels * 255) @ _Y


def psnr_y(image: Floats, target: Floats) -> float:
    """Return the PSNR in dB of the `luma`, of peak 255; infinite for equal lumas.

    Args:
        image: float of shape (height, width, 3), RGB; clipped to [0, 1] here.
        target: the same.

    Example:
        >>> round(psnr_y(np.full((8, 8, 3), 100 / 255, np.float32), np.full((8, 8, 3), 110 / 255, np.float32)), 3)
        29.453

    Reference:
        BasicSR's ``calculate_psnr(crop_border=0, test_y_channel=True)``.
    """
    return _psnr(luma(image), luma(target), peak=255)


def ssim_y(image: Floats, target: Floats) -> float:
    """Return the structural similarity of the `luma`, at most 1: the mean over all pixels but a border of 5.

    Args:
        image: float of shape (height, width, 3), RGB, both sides at least 11; clipped to [0, 1] here.
        target: the same.

    Reference:
        Wang et al. 2004, Gaussian window of sigma 1.5, 11x11, covariance of the population, K1 0.01, K2 0.03; BasicSR's
        ``calculate_ssim(crop_border=0, test_y_channel=True)``.
    """
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(luma(image), luma(target), data_range=255, **gaussian))


METRICS = {
    "psnr": Metric("psnr", PROTOCOL, psnr),
    "ssim": Metric("ssim", PROTOCOL, ssim, side=7),
    "psnr_y": Metric("psnr_y", Y_PROTOCOL, psnr_y, in_colour=True),
    "ssim_y": Metric("ssim_y", Y_PROTOCOL, ssim_y, side=11, in_colour=True),
}
"""What can be computed without weights; the rest is in ``perceptual.PROTOCOLS``."""


def chosen(names: Sequence[str] | None = None, *, in_grey: bool = False) -> tuple[Metric, ...]:
    """Return metrics by name, ready to be computed: LPIPS and DISTS load their networks here.

    Args:
        names: keys of ``METRICS`` or ``perceptual.PROTOCOLS``; None takes all of the former that the colour allows.
        in_grey: whether images have one channel instead of three.

    Raises:
        RecipeError: a name is unknown, or not defined for grey images; piq or its weights are missing.

    Example:
        >>> [metric.name for metric in chosen()], [metric.name for metric in chosen(in_grey=True)]
        (['psnr', 'ssim', 'psnr_y', 'ssim_y'], ['psnr', 'ssim'])
    """
    if names is None:
        names = [name for name, metric in METRICS.items() if not (in_grey and metric.in_colour)]
    if not names:
        raise RecipeError(f"metrics is empty. {nearest('', (*METRICS, *perceptual.PROTOCOLS))}")
    return tuple(_metric(name, in_grey) for name in dict.fromkeys(names))


def floats(pixels: npt.NDArray[np.uint8]) -> Floats:
    """Return uint8 pixels as float32 in [0, 1]: divided in float64, then rounded."""
    return (pixels / 255).astype(np.float32)


def _metric(name: str, in_grey: bool) -> Metric:
    if name not in METRICS and name not in perceptual.PROTOCOLS:
        raise RecipeError(f"metric {name!r} is unknown: {nearest(name, (*METRICS, *perceptual.PROTOCOLS))}")
    if in_grey and (name in perceptual.PROTOCOLS or METRICS[name].in_colour):
        raise RecipeError(f"metric {name!r} is defined for RGB, and this network restores grey images: leave it out.")
    if name in METRICS:
        return replace(METRICS[name], protocol=GREY_PROTOCOL) if in_grey else METRICS[name]
    distance = perceptual.distance(name)
    return Metric(name, perceptual.PROTOCOLS[name], distance, False, perceptual.SIDE, in_colour=True)


def _psnr(image: npt.NDArray[np.float64], target: npt.NDArray[np.floating], *, peak: float) -> float:
    error = float(np.mean((image - target) ** 2))
    return -10 * math.log10(error / peak**2) if error else math.inf
