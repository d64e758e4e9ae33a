"""Reading images as a viewer shows them, and the errors where there is nothing to show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunekit.errors import DataError
from prunekit_mir_l.images import grey, is_image, read_rgb, size_of

RED, GREEN = (255, 0, 0), (0, 255, 0)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def two_pixels() -> Image.Image:
    """Red on the left, green on the right."""
    return Image.fromarray(np.array([[RED, GREEN]], np.uint8))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "PNG"])
def test_lossless_formats_give_their_pixels(tmp_path: Path, suffix: str) -> None:
    pixels = read_rgb(save(tmp_path / f"a.{suffix}", two_pixels(), lossless=True))
    assert pixels.dtype == np.uint8
    assert pixels.tolist() == [[list(RED), list(GREEN)]]


def test_grey_is_the_rounded_luma_of_bt_601() -> None:
    pixels = np.array([[RED, GREEN, (0, 0, 255), (255, 255, 255), (10, 20, 30)]], np.uint8)
    assert grey(pixels).shape == (1, 5, 1)
    assert grey(pixels)[0, :, 0].tolist() == [76, 150, 29, 255, 18]  # 0.299, 0.587, 0.114; 18.15 for the last


def test_jpeg_is_near(tmp_path: Path) -> None:
    flat = Image.new("RGB", (16, 16), (200, 100, 50))
    assert np.abs(read_rgb(save(tmp_path / "a.jpeg", flat)).astype(int) - [200, 100, 50]).max() <= 3


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette_become_rgb(tmp_path: Path, mode: str) -> None:
    image = two_pixels().convert("L" if mode != "P" else "RGB").convert(mode)
    assert read_rgb(save(tmp_path / "a.png", image)).tolist() == np.asarray(image.convert("RGB")).tolist()


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    pixel = read_rgb(save(tmp_path / "a.jpg", image, quality=100))[8, 8].astype(int)
    assert np.abs(pixel - [255, 0, 0]).max() <= 3


def test_sixteen_bits_become_eight_by_their_high_byte(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 0x80FF, 0xFFFF]], np.uint16))
    assert read_rgb(save(tmp_path / "a.png", image)).tolist() == [[[0] * 3, [128] * 3, [255] * 3]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (1, 1), (0,) * len(mode))
    assert read_rgb(save(tmp_path / "a.png", image)).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize(
    ("orientation", "pixels"),
    [(1, [[RED, GREEN]]), (3, [[GREEN, RED]]), (6, [[RED], [GREEN]]), (8, [[GREEN], [RED]])],
)
def test_the_cameras_rotation_is_applied(
    tmp_path: Path, orientation: int, pixels: list[list[tuple[int, int, int]]]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", two_pixels(), exif=exif)
    assert read_rgb(path).tolist() == np.array(pixels).tolist()
    assert size_of(path) == np.shape(pixels)[:2]


def test_an_image_of_one_pixel_is_an_image(tmp_path: Path) -> None:
    assert read_rgb(save(tmp_path / "a.png", Image.new("RGB", (1, 1), RED))).tolist() == [[list(RED)]]


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tif"])
def test_a_truncated_image_is_named(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"cat.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"cat\.{suffix}: cannot be read"):
        read_rgb(path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
@pytest.mark.parametrize("read", [read_rgb, size_of])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, read: Callable[[Path], object]) -> None:
    path = tmp_path / "cat.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cat\.png: cannot be read"):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cat\.png: no such file"):
        read_rgb(tmp_path / "cat.png")


def test_images_are_known_by_their_names() -> None:
    assert [is_image(Path(n)) for n in ("a.JPG", "a.bmp", "a.txt", "._a.jpg", "Thumbs.db")] == [True, True] + [
        False
    ] * 3


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_is_that_of_the_upright_image(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a.{suffix}", Image.new("RGB", (30, 20)), exif=exif)
    assert size_of(path) == read_rgb(path).shape[:2] == ((30, 20) if orientation > 4 else (20, 30))
