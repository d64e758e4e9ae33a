"""Noise by the published rule; rain and haze within plausible bounds; the symmetries of the square."""

from __future__ import annotations

import numpy as np
import pytest

from prunekit.data import generator
from prunekit_mir_l import degrade, metrics
from prunekit_mir_l.degrade import Window, centre_window, random_window
from prunekit_mir_l.embedded import TEST, _find
from prunekit_mir_l.images import Pixels, read_rgb

GREY = np.full((40, 56, 3), 128, np.uint8)


def db(image: Pixels, target: Pixels) -> float:
    return metrics.psnr(metrics.floats(image), metrics.floats(target))


def test_noise_is_the_published_formula_truncated() -> None:
    drawn = np.random.default_rng(3).standard_normal(GREY.shape)
    noisy = degrade.noise(GREY, 25, np.random.default_rng(3))
    assert np.array_equal(noisy, np.clip(128 + 25 * drawn, 0, 255).astype(np.uint8))
    # Truncation shifts the mean down by half a level; rounding would not.
    level = degrade.noise(np.full((400, 400, 3), 128, np.uint8), 5, np.random.default_rng(0)).mean()
    assert level == pytest.approx(127.5, abs=0.05)


def test_noise_is_clipped_and_does_not_wrap() -> None:
    assert degrade.noise(np.full((64, 64, 3), 255, np.uint8), 50, np.random.default_rng(0)).min() > 20
    assert degrade.noise(np.zeros((64, 64, 3), np.uint8), 50, np.random.default_rng(0)).max() < 255 - 20


@pytest.mark.parametrize("make", [degrade.rain, degrade.haze, lambda x, rng: degrade.noise(x, 15, rng)])
def test_a_degradation_is_a_function_of_its_generator_and_leaves_its_input(make: object) -> None:
    clean = GREY.copy()
    first, again, other = (make(clean, generator("x", key)) for key in (1, 1, 2))  # type: ignore[operator]
    assert first.shape == clean.shape and first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(clean, GREY)


@pytest.mark.parametrize(("make", "low", "high"), [(degrade.rain, 20, 30), (degrade.haze, 10, 20)])
def test_rain_and_haze_are_about_as_strong_as_in_the_published_sets(make: object, low: int, high: int) -> None:
    photographs = [read_rgb(_find(path))[:256, :256] for path in TEST]
    found = [db(make(clean, generator("x", key)), clean) for key in range(15) for clean in photographs]  # type: ignore[operator]
    assert low < np.median(found) < high
    assert np.mean([low <= value <= high for value in found]) > 0.7


def test_rain_only_adds_light_and_leaves_most_pixels() -> None:
    rainy = degrade.rain(GREY, generator("x", 0))
    assert (rainy >= GREY).all()
    assert 0.5 < (rainy == GREY).mean() < 1


def test_rain_falls_rather_than_lies() -> None:
    black = np.zeros((100, 100, 3), np.uint8)
    for key in range(10):
        streaks = degrade.rain(black, generator("x", key)).astype(float)
        assert np.abs(np.diff(streaks, axis=0)).sum() < np.abs(np.diff(streaks, axis=1)).sum()


def test_haze_thickens_towards_the_horizon() -> None:
    black = np.zeros((200, 200, 3), np.uint8)
    hazy = np.mean([degrade.haze(black, generator("x", key)) for key in range(20)], axis=0)
    assert hazy[:50].mean() > hazy[-50:].mean() + 20


def test_haze_of_a_crop_is_the_crop_of_the_haze() -> None:
    clean = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    window = Window(20, 10, 32, 40, image=(90, 70))
    whole = degrade.haze(clean, generator("x", 0))
    assert np.array_equal(degrade.haze(window.cut(clean), generator("x", 0), window=window), window.cut(whole))


def test_the_eight_turns_are_the_symmetries_of_the_square() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert np.array_equal(degrade.turn(pixels, 0), pixels)
    assert len({degrade.turn(pixels, which).tobytes() for which in range(8)}) == 8


def test_random_windows_reach_every_place() -> None:
    rng = np.random.default_rng(0)
    corners = {(w.top, w.left) for w in (random_window((10, 9), 8, rng) for _ in range(200))}
    assert corners == {(top, left) for top in range(3) for left in range(2)}


@pytest.mark.parametrize(
    ("image", "limit", "expected"),
    [((321, 481), None, (0, 0, 320, 480)), ((40, 50), None, (4, 1, 32, 48)), ((321, 481), 192, (64, 144, 192, 192))],
)
def test_the_centre_is_cropped_to_multiples_of_16(
    image: tuple[int, int], limit: int | None, expected: tuple[int, ...]
) -> None:
    window = centre_window(image, limit=limit)
    assert (window.top, window.left, window.height, window.width) == expected
