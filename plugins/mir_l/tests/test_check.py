"""What `data check` counts and names."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_folder import paint

from prunekit.errors import DataError
from prunekit_mir_l.check import Report, SetReport, check, render

SHARED = Path(__file__).parents[4] / "shared" / "data"


def found(report: Report, split: str, task: str, name: str) -> SetReport:
    return next(one for one in report.sets if (one.split, one.task, one.name) == (split, task, name))


def test_a_short_set_is_counted_and_no_problem(tree: Path) -> None:
    report = check(tree)
    assert report.problems == 0
    assert found(report, "train", "derain", "Rain100L") == SetReport("train", "derain", "Rain100L", 2, 200, ())
    assert found(report, "train", "denoise", "BSD") == SetReport("train", "denoise", "BSD", 2, None, ())
    assert found(report, "train", "denoise", "WED").count == 0


def test_every_problem_is_named_and_such_items_are_not_counted(tree: Path) -> None:
    rain = tree / "train" / "derain" / "Rain100L"
    (rain / "input" / "rain-001_rainy.png").unlink()
    paint(rain / "target" / "rain-002_gt.png", height=70)
    clean = tree / "train" / "denoise" / "BSD"
    (clean / "a.jpg").write_bytes((clean / "a.jpg").read_bytes()[:1500])
    paint(clean / "dot.png", height=1, width=1)
    report = check(tree)
    pairs, images = found(report, "train", "derain", "Rain100L"), found(report, "train", "denoise", "BSD")
    assert (report.problems, pairs.count, images.count) == (4, 0, 1)
    assert "rain-001_gt.png: the pair has no input." in pairs.problems[0]
    assert "rain-002_rainy.png: 80x96 pixels, but its target has 80x70." in pairs.problems[1]
    assert "a.jpg: cannot be read" in images.problems[0]
    assert "dot.png: 1x1 pixels, smaller than the 64x64 needed." in images.problems[1]


def test_the_patch_is_asked_of_training_images_only(tree: Path) -> None:
    report = check(tree, patch=88)
    assert report.problems == 5
    assert not any(one.problems for one in report.sets if one.split == "test")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        check(tmp_path / "nowhere")


def test_rendered_as_plain_lines(tmp_path: Path) -> None:
    broken = SetReport("train", "derain", "Rain100L", 23, 200, ("x_gt.png: the pair has no input.",))
    report = Report(tmp_path, (broken, SetReport("test", "denoise", "Mine", 1, None, ())))
    assert render(report) == [
        f"{tmp_path}: 1 problem",
        "train/derain    Rain100L        23 of 200 pairs",
        "    x_gt.png: the pair has no input.",
        "test/denoise    Mine            1 image",
    ]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real images are not here")
def test_real_images() -> None:
    report = check(SHARED)
    assert report.problems == 0
    counts = {(one.split, one.name): one.count for one in report.sets if one.count}
    assert counts == {
        ("train", "BSD400"): 120,
        ("train", "Rain100L"): 24,
        ("train", "OTS"): 45,
        ("test", "BSD68"): 24,
        ("test", "Urban100"): 3,
        ("test", "Rain100L"): 10,
        ("test", "SOTS"): 8,
        ("test", "SOTS_outdoor"): 1,
    }


def test_sets_that_jpeg_and_web_are_tested_on_are_counted(tree: Path) -> None:
    paint(tree / "test" / "jpeg" / "LIVE1" / "bikes.bmp")
    for half in ("input", "target"):
        paint(tree / "test" / "web" / "web-v1-BSD" / half / "a_upload.png")
    report = check(tree)
    assert found(report, "test", "jpeg", "LIVE1") == SetReport("test", "jpeg", "LIVE1", 1, None, ())
    assert found(report, "test", "web", "web-v1-BSD") == SetReport("test", "web", "web-v1-BSD", 1, None, ())
    lines = [" ".join(line.split()) for line in render(report)]
    assert {"test/jpeg LIVE1 1 image", "test/web web-v1-BSD 1 pair"} <= set(lines)
