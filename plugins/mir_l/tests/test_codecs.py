"""Compressed files: near the original at the best quality, the same twice, sized on request, refused with a reason."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from prunekit.errors import DataError, RecipeError
from prunekit_mir_l.codecs import CODECS, SUBSAMPLINGS, at_bytes, decode, encode, need, versions
from prunekit_mir_l.images import Pixels

HERE = [codec for codec in CODECS if codec in versions() or codec == "jpeg"]


def scene(height: int = 72, width: int = 88, channels: int = 3) -> Pixels:
    """Paint smooth colours, two edges and some texture."""
    row, col = np.indices((height, width), dtype=float)
    bands = [128 + 90 * np.sin(row / 9 + phase) * np.cos(col / 13 - phase) for phase in (0, 1, 2)][:channels]
    painted = np.stack(bands, axis=-1) + 25 * (col > 40)[..., None] - 30 * (row > 51)[..., None]
    return np.rint(painted + np.random.default_rng(0).normal(0, 3, painted.shape)).clip(0, 255).astype(np.uint8)


def error(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(int) - other).mean())


def through(pixels: Pixels, codec: str, quality: int, subsampling: str = "4:2:0") -> Pixels:
    return decode(encode(pixels, codec, quality, subsampling), channels=pixels.shape[2])


@pytest.mark.parametrize("channels", [3, 1])
def test_the_best_jpeg_is_nearly_the_original(channels: int) -> None:
    pixels = scene(channels=channels)
    assert error(through(pixels, "jpeg", 100, "4:4:4"), pixels) < 1


@pytest.mark.parametrize("codec", HERE)
@pytest.mark.parametrize("channels", [3, 1])
def test_quality_costs_bytes_and_pays_in_error(codec: str, channels: int) -> None:
    pixels = scene(channels=channels)
    files = [encode(pixels, codec, quality) for quality in (5, 40, 90)]
    assert len(files[0]) < len(files[1]) < len(files[2])
    errors = [error(decode(file, channels=channels), pixels) for file in files]
    assert errors[0] > errors[1] > errors[2]
    assert decode(files[0], channels=channels).shape == pixels.shape
    assert encode(pixels, codec, 40) == files[1]


@pytest.mark.parametrize("codec", [codec for codec in HERE if codec != "webp"])
def test_finer_chroma_is_nearer_to_a_colourful_original(codec: str) -> None:
    row, col = np.indices((64, 64))
    checks: Pixels = np.stack([255 * ((row + col) // 2 % 2), np.full((64, 64), 90), 255 * (row // 2 % 2)], -1).astype(
        np.uint8
    )
    errors = [error(through(checks, codec, 90, subsampling), checks) for subsampling in SUBSAMPLINGS]
    assert errors[0] > errors[1] > errors[2]


def test_grey_jpeg_is_written_in_grey() -> None:
    pixels = scene(channels=1)
    assert encode(pixels, "jpeg", 30, "4:4:4") == encode(pixels, "jpeg", 30, "4:2:0")
    assert len(encode(pixels, "jpeg", 30)) < len(encode(pixels.repeat(3, axis=2), "jpeg", 30))


@pytest.mark.parametrize("codec", HERE)
@pytest.mark.parametrize("quality", [10, 20, 55])
def test_at_bytes_fits_and_the_next_quality_does_not(codec: str, quality: int) -> None:
    pixels = scene()
    limit = len(encode(pixels, "jpeg", quality))
    found = at_bytes(pixels, codec, limit)
    assert len(encode(pixels, codec, found)) <= limit < len(encode(pixels, codec, found + 1))


def test_at_bytes_of_the_same_codec_is_its_own_quality() -> None:
    pixels = scene()
    assert [at_bytes(pixels, "jpeg", len(encode(pixels, "jpeg", quality))) for quality in (10, 33, 70)] == [10, 33, 70]


def test_at_bytes_that_no_file_has_gives_an_end_of_the_scale() -> None:
    assert at_bytes(scene(), "jpeg", 1) == 1
    assert at_bytes(scene(), "jpeg", 10**9) == 100


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("jpg", 10), "codec 'jpg' is unknown: did you mean 'jpeg'"),
        (("jpeg", 0), "quality is 0: give a whole number from 1 to 100"),
        (("webp", 101), "quality is 101"),
        (("jpeg", 10.5), "quality is 10.5"),
        (("jpeg", 10, "4:1:1"), "subsampling '4:1:1' is unknown: did you mean"),
        (("webp", 10, "4:4:4"), "lossy WebP has 4:2:0 alone"),
    ],
)
def test_an_option_without_meaning_is_refused(options: tuple[Any, ...], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        encode(scene(16, 16), *options)


def test_an_image_that_a_format_cannot_hold_is_refused() -> None:
    with pytest.raises(DataError, match="16384x1 pixels cannot be written as webp"):
        encode(np.zeros((1, 16384, 3), np.uint8), "webp", 10)


def test_a_pillow_without_avif_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "SAVE", {name: save for name, save in Image.SAVE.items() if name != "AVIF"})
    monkeypatch.setattr(Image, "init", lambda: None)
    need("jpeg")
    need("webp")
    with pytest.raises(RecipeError, match=r"cannot write AVIF; .*11\.3 on: install another .*leave out .*web"):
        need("avif")
    assert "avif" not in versions()


def test_versions_name_pillow_and_its_encoders() -> None:
    known = versions()
    assert known["pillow"] == sys.modules["PIL"].__version__
    assert {"libjpeg_turbo", "jpg"} & set(known)
