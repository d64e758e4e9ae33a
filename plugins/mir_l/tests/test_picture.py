"""Picture files: what of them is kept, what is lost and said, and how they are written."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from prunekit.errors import DataError
from prunekit_mir_l.images import Pixels, files_below, is_image, read_rgb
from prunekit_mir_l.picture import Picture, open_picture, write_picture

GREY: Pixels = np.full((6, 9, 3), 90, np.uint8)


def odd_exif(orientation: int) -> bytes:
    """EXIF data with an orientation, and a GPS directory whose version (tag 0) is text instead of bytes."""
    first = struct.pack("<H", 2) + struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    first += struct.pack("<HHII", 0x8825, 4, 1, 38) + struct.pack("<I", 0)
    gps = struct.pack("<H", 1) + struct.pack("<HHI4s", 0, 2, 4, b"2.2\0") + struct.pack("<I", 0)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + gps


@pytest.mark.parametrize(("orientation", "shape"), [(1, (6, 9, 3)), (6, (9, 6, 3))])
def test_camera_data_that_cannot_be_written_is_left_out_and_the_picture_kept(
    tmp_path: Path, orientation: int, shape: tuple[int, ...]
) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.jpg", exif=odd_exif(orientation))
    picture = open_picture(tmp_path / "a.jpg")
    assert (picture.exif, picture.note) == (None, "camera data left out: not as EXIF has it")
    assert picture.pixels_hwc.shape == read_rgb(tmp_path / "a.jpg").shape == shape


@pytest.mark.parametrize(("orientation", "sides"), [(1, (9, 6)), (6, (6, 9))])
def test_the_sides_that_camera_data_tells_turn_with_the_picture(
    tmp_path: Path, orientation: int, sides: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769).update({0xA002: 9, 0xA003: 6})
    Image.fromarray(GREY).save(tmp_path / "a.jpg", exif=exif)
    write_picture(open_picture(tmp_path / "a.jpg"), tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as made:
        inner = made.getexif().get_ifd(0x8769)
        assert (inner[0xA002], inner[0xA003]) == made.size == sides


def test_sixteen_bits_of_colour_are_told(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">6H", 0x80FF, 0, 0xFFFF, 1, 0x4000, 0x0100)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(row)), chunk(b"IEND", b""))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    picture = open_picture(tmp_path / "a.png")
    assert (picture.pixels_hwc.tolist(), picture.note) == ([[[0x80, 0, 0xFF], [0, 0x40, 1]]], "16 bits read as 8")


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_of_several_frames_the_first_is_taken_and_told(tmp_path: Path, suffix: str) -> None:
    first, second = Image.fromarray(GREY), Image.fromarray(GREY // 2)
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[second], lossless=True)
    picture = open_picture(tmp_path / f"a.{suffix}")
    assert (picture.pixels_hwc.tolist(), picture.note) == (GREY.tolist(), "the first of 2 frames")


def test_jfif_is_written_as_jpeg_is_and_avif_is_an_image(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for name in ("a.jfif", "a.jpg"):
        write_picture(Picture(noise), tmp_path / name)
    assert (tmp_path / "a.jfif").read_bytes() == (tmp_path / "a.jpg").read_bytes()
    assert is_image(tmp_path / "a.jfif") and is_image(tmp_path / "A.AVIF")
    if features.check("avif"):
        write_picture(Picture(GREY), tmp_path / "a.avif")
        assert read_rgb(tmp_path / "a.avif").shape == GREY.shape


def test_the_longest_names_are_written_and_longer_ones_refused(tmp_path: Path) -> None:
    write_picture(Picture(GREY), tmp_path / ("é" * 125 + ".png"))
    assert [len(os.fsencode(path.name)) for path in tmp_path.iterdir()] == [254]
    with pytest.raises(DataError, match="cannot be written as .png: .*[Nn]ame too long"):
        write_picture(Picture(GREY), tmp_path / ("x" * 252 + ".png"))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_where_a_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "deep").write_text("mine")
    with pytest.raises(DataError, match=r"deep/a\.png cannot be written as \.png"):
        write_picture(Picture(GREY), tmp_path / "deep" / "a.png")
    assert (tmp_path / "deep").read_text() == "mine"


def test_linked_folders_are_walked_once_each_and_without_end(tmp_path: Path) -> None:
    for name in ("set/b.png", "elsewhere/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "set" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "gone").symlink_to(tmp_path / "nowhere")
    found = [str(path.relative_to(tmp_path / "set")) for path in files_below(tmp_path / "set")]
    assert found == ["a/a.png", "b.png", "c/a.png"]
