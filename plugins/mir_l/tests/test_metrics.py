"""PSNR and SSIM against the published protocol's reference values."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from prunekit_mir_l import metrics
from prunekit_mir_l.metrics import Floats

FACTS = json.loads((Path(__file__).parent / "fixtures" / "mirl_facts.json").read_text())["metrics"]


def pair(height: int, width: int, name: str) -> tuple[Floats, Floats]:
    """Return (degraded, clean) as the reference file describes."""
    clean = getattr(data, name)()[:height, :width].astype(np.float64)
    row, col, channel = np.indices(clean.shape, dtype=np.float64)
    wave = 25 * np.sin(0.7 * row + 1.3 * col + 2.1 * channel) + 8 * np.sin(0.11 * row * col / 50)
    return (np.clip(clean + wave, 0, 255) / 255).astype(np.float32), (clean / 255).astype(np.float32)


@pytest.mark.parametrize(
    ("case", "shape", "name"),
    [(0, (512, 512), "astronaut"), (1, (288, 448), "chelsea"), (2, (400, 592), "coffee")],
)
def test_reference_values(case: int, shape: tuple[int, int], name: str) -> None:
    expected = FACTS["cases"][case]
    assert name in expected["image"]
    image, target = pair(*shape, name)
    assert metrics.psnr(image, target) == pytest.approx(expected["psnr"], abs=1e-6)
    assert metrics.ssim(image, target) == pytest.approx(expected["ssim"], abs=1e-6)


def test_equal_to_scikit_image_on_what_lies_outside_the_range_too() -> None:
    rng = np.random.default_rng(0)
    target = rng.random((24, 40, 3), dtype=np.float32)
    image = target + rng.normal(0, 0.3, target.shape).astype(np.float32)
    shown = image.clip(0, 1)
    assert metrics.psnr(image, target) == pytest.approx(peak_signal_noise_ratio(target, shown, data_range=1), abs=1e-6)
    expected = structural_similarity(shown, target, channel_axis=-1, data_range=1.0)
    assert metrics.ssim(image, target) == pytest.approx(expected, abs=1e-6)


def test_equal_images_are_as_near_as_can_be() -> None:
    image = np.full((16, 16, 3), 0.5, np.float32)
    assert metrics.psnr(image, image) == math.inf
    assert metrics.ssim(image, image) == pytest.approx(1)
