"""PSNR and SSIM against the published protocol's reference values; luma against its definition, written out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from prunekit.errors import DataError, RecipeError
from prunekit_mir_l import metrics
from prunekit_mir_l.images import Floats

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


def luma_by_hand(image: Floats) -> npt.NDArray[np.float64]:
    """Return BT.601's luma, pixel by pixel."""
    y = np.zeros(image.shape[:2])
    for row, col in np.ndindex(*y.shape):
        red, green, blue = (round(min(max(float(v), 0.0), 1.0) * 255) for v in image[row, col])
        y[row, col] = 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255
    return y


def ssim_by_hand(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    """Return the mean over every place at which a Gaussian window of 11 x 11 lies inside."""
    bell = [math.exp(-((k - 5) ** 2) / (2 * 1.5**2)) for k in range(11)]
    weights = np.outer(bell, bell) / sum(bell) ** 2
    found = []
    for row, col in np.ndindex(x.shape[0] - 10, x.shape[1] - 10):
        a, b = x[row : row + 11, col : col + 11], y[row : row + 11, col : col + 11]
        mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
        var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
        both = (weights * (a - mean_a) * (b - mean_b)).sum()
        c1, c2 = 2.55**2, 7.65**2
        alike = (2 * mean_a * mean_b + c1) * (2 * both + c2)
        found.append(alike / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    return sum(found) / len(found)


@pytest.mark.parametrize(("shape", "name"), [((11, 11), "chelsea"), ((16, 29), "astronaut"), ((40, 24), "coffee")])
def test_luma_is_measured_by_its_definition(shape: tuple[int, int], name: str) -> None:
    rng = np.random.default_rng(0)
    _, target = pair(*shape, name)
    image = target + rng.normal(0, 0.2, target.shape).astype(np.float32)  # outside [0, 1] here and there
    y, wanted = luma_by_hand(image), luma_by_hand(target)
    assert np.abs(metrics.luma(image) - y).max() < 1e-12
    error = ((y - wanted) ** 2).mean()
    assert metrics.psnr_y(image, target) == pytest.approx(10 * math.log10(255**2 / error), abs=1e-9)
    assert metrics.ssim_y(image, target) == pytest.approx(ssim_by_hand(y, wanted), abs=1e-9)


def test_luma_of_one_small_image() -> None:
    image, target = pair(24, 32, "chelsea")
    assert metrics.psnr_y(image, target) == pytest.approx(31.246037263362, abs=1e-9)
    assert metrics.ssim_y(image, target) == pytest.approx(0.647524068620, abs=1e-9)


def test_luma_is_of_eight_bits_and_is_not_rounded_itself() -> None:
    target = np.zeros((16, 16, 3), np.float32)
    nearly, one = (np.full_like(target, value / 255) for value in (0.4, 0.6))
    assert metrics.psnr_y(nearly, target) == math.inf
    assert metrics.psnr_y(one, target) == pytest.approx(20 * math.log10(255 / (219 / 255)), abs=1e-6)


def test_names_choose_metrics_and_their_protocols() -> None:
    usual = metrics.chosen()
    assert [metric.name for metric in usual] == ["psnr", "ssim", "psnr_y", "ssim_y"]
    assert len({metric.protocol for metric in usual}) == 2
    assert [metric.name for metric in metrics.chosen(["ssim_y", "psnr", "ssim_y"])] == ["ssim_y", "psnr"]
    assert {metric.protocol for metric in metrics.chosen(in_grey=True)} == {metrics.GREY_PROTOCOL}


@pytest.mark.parametrize(
    ("names", "in_grey", "told"),
    [
        (["pnsr"], False, "metric 'pnsr' is unknown: did you mean 'psnr'"),
        ([], False, "metrics is empty"),
        (["psnr", "ssim_y"], True, "metric 'ssim_y' is defined for RGB, and this network restores grey images"),
        (["lpips"], True, "metric 'lpips' is defined for RGB"),
    ],
)
def test_a_metric_without_meaning_is_refused(names: list[str], in_grey: bool, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        metrics.chosen(names, in_grey=in_grey)


@pytest.mark.parametrize(("name", "side"), [("ssim", 7), ("ssim_y", 11)])
def test_an_image_smaller_than_the_window_is_refused(name: str, side: int) -> None:
    (metric,) = metrics.chosen([name])
    image = np.zeros((side, side, 3), np.float32)
    assert metric(image, image) == pytest.approx(1)
    with pytest.raises(DataError, match=f"{name} needs images of at least {side} x {side} pixels, not {side} x 3"):
        metric(image[:3], image[:3])
