"""Restoring files and folders: what is written, kept, compared, measured, and refused."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from torch import nn

from prunekit.errors import DataError
from prunekit.imaging import ImageCall
from prunekit_mir_l.compare import side_by_side
from prunekit_mir_l.picture import open_picture, write_picture
from prunekit_mir_l.restore_files import Job, plan, restore_files
from prunekit_mir_l.restorer import Restorer

SAME = Restorer(nn.Identity(), ImageCall(channels=3))
ORIENTATION, MAKE = 0x0112, 0x010F


def paint(path: Path, value: int = 100, size: tuple[int, int] = (20, 16), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).convert(mode).save(path)
    return path


def restore(jobs: list[Job], **options: object) -> list[tuple[str, bool]]:
    return [(told.text, told.failed) for told in restore_files(SAME, jobs, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_the_camera_data_and_colours_of_a_file_are_kept_and_it_stands_upright(tmp_path: Path, suffix: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKE] = 6, "PruneCam"
    source = tmp_path / f"a{suffix}"
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, :12] = 200
    Image.fromarray(pixels).save(source, exif=exif, icc_profile=profile)
    assert restore(plan([source], tmp_path / "out"))[0][1] is False
    with Image.open(tmp_path / "out" / source.name) as made:
        assert (made.size, made.info["icc_profile"]) == ((8, 24), profile)
        assert (made.getexif().get(ORIENTATION, 1), made.getexif()[MAKE]) == (1, "PruneCam")
        assert np.asarray(made.convert("RGB"))[2, 4, 0] > 190  # the left half is on top, turned
        assert np.asarray(made.convert("RGB"))[-2, 4, 0] < 10


def test_transparency_is_kept_and_colours_under_it_too(tmp_path: Path) -> None:
    rgba = np.zeros((4, 6, 4), np.uint8)
    rgba[..., 0], rgba[:, :3, 3] = 77, 128
    Image.fromarray(rgba).save(tmp_path / "a.png")
    restore(plan([tmp_path / "a.png"], tmp_path / "out"))
    with Image.open(tmp_path / "out" / "a.png") as made:
        assert np.array_equal(np.asarray(made), rgba)


def test_a_profile_that_does_not_fit_the_new_colours_is_dropped_and_16_bits_are_told(tmp_path: Path) -> None:
    Image.new("CMYK", (5, 5)).save(tmp_path / "a.jpg", icc_profile=b"cmyk profile")
    assert open_picture(tmp_path / "a.jpg").profile is None
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "b.png")
    (text, failed), *_ = restore(plan([tmp_path / "b.png"], tmp_path / "out"))
    assert (text.endswith("(16 bits read as 8)"), failed) == (True, False)


def test_folders_keep_their_structure_and_one_broken_file_stops_nothing(tmp_path: Path) -> None:
    paint(tmp_path / "in" / "a.png")
    paint(tmp_path / "in" / "deep" / "a.png", 30)
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "in" / "notes.txt").write_text("hello")
    told = restore(plan([tmp_path / "in"], tmp_path / "in" / "out"))
    assert [failed for _, failed in told] == [False, True, False]
    assert "broken.png: cannot be read (not an image)" in told[1][0]
    out = tmp_path / "in" / "out"
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.*")) == ["a.png", "deep/a.png"]
    with pytest.raises(DataError, match=r"exists already .* or give --skip-existing"):
        plan([tmp_path / "in"], out)
    again = restore(plan([tmp_path / "in"], out, skip_existing=True))
    assert [(text.split(": ")[0].endswith("broken.png"), failed) for text, failed in again] == [(True, True)]


def test_names_that_would_become_one_are_refused(tmp_path: Path) -> None:
    folders = [paint(tmp_path / name / "a.png").parent for name in ("one", "two")]
    with pytest.raises(DataError, match=r"two images are called a\.png"):
        plan(folders, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there are no images in"):
        plan([tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(DataError, match=r"one is read and would be written into: choose another folder with -o"):
        plan([tmp_path / "one"], tmp_path / "one")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    picture = open_picture(paint(tmp_path / "a.png"))
    with pytest.raises(DataError, match=r"b\.xyz cannot be written as \.xyz"):
        write_picture(picture, tmp_path / "out" / "b.xyz")
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(DataError, match="exists already"):
        write_picture(picture, tmp_path / "a.png")


def test_metrics_are_told_averaged_and_written(tmp_path: Path) -> None:
    paint(tmp_path / "in" / "x_rainy.png", 100)
    paint(tmp_path / "in" / "y_rainy.png", 100)
    paint(tmp_path / "in" / "z_rainy.png", 100)
    paint(tmp_path / "gt" / "x_gt.png", 125)
    paint(tmp_path / "gt" / "y_gt.png", 75, size=(20, 17))
    out = tmp_path / "out"
    told = restore(plan([tmp_path / "in"], out), targets=tmp_path / "gt", table=out / "metrics.csv")
    texts = [text for text, _ in told]
    assert any("psnr 20.17 -> 20.17" in text for text in texts)  # 20 log10(255 / 25)
    assert any("y_gt.png has 20x17 pixels, and y_rainy.png 20x16: nothing is measured" in text for text in texts)
    assert any("z_rainy.png: " in text and "has no target of its name" in text for text in texts)
    assert sum(failed for _, failed in told) == 2
    assert any(text.startswith("mean psnr of 1: input 20.17, restored 20.17 (RGB, float") for text in texts)
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["metric"]) for row in rows] == [
        ("x_rainy.png", metric) for metric in ("psnr", "ssim", "psnr_y", "ssim_y")
    ]
    assert {row["input"] for row in rows if row["metric"] == "psnr"} == {"20.172"}


def test_side_by_sides_lie_beside_their_pictures(tmp_path: Path) -> None:
    restore(plan([paint(tmp_path / "a.png", size=(30, 20))], tmp_path / "out"), compare=True)
    with Image.open(tmp_path / "out" / "a.png.compare.png") as sheet:
        assert sheet.size == (60, 36)
        assert sheet.getpixel((40, 30)) == (100, 100, 100)


def test_large_ones_are_scaled_and_show_their_centre() -> None:
    images = {name: np.full((1500, 3000, 3), value, np.uint8) for name, value in (("input", 10), ("restored", 240))}
    sheet = side_by_side(images)
    assert sheet.size == (2000, 16 + 500 + 750)
    assert [sheet.getpixel((x, 1000)) for x in (500, 1500)] == [(10, 10, 10), (240, 240, 240)]
