"""The published folder layout: pairs, balance, and a clear error for each thing that may be wrong."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from data_folder import paint

from prunekit.errors import DataError
from prunekit_mir_l.folders import folders

RAIN = Path("train/derain/Rain100L")


def test_all_three_tasks_with_the_published_balance(tree: Path) -> None:
    items = folders(tree, None, (15, 25, 50))
    assert Counter(item.task for item in items.train) == {
        "denoise_15": 2 * 3,
        "denoise_25": 2 * 3,
        "denoise_50": 2 * 3,
        "derain": 2 * 120,
        "dehaze": 1,
    }
    assert [(item.task, item.dataset, item.name) for item in items.test] == [
        *((f"denoise_{sigma}", "BSD", name) for sigma in (15, 25, 50) for name in ("a.jpg", "b.PNG")),
        ("derain", "Rain100L", "rain-001_rainy.png"),
        ("derain", "Rain100L", "rain-002_rainy.png"),
        ("dehaze", "OTS", "0001_0.8_0.2_hazy.jpg"),
    ]


def test_pairs_belong_together(tree: Path) -> None:
    for item in folders(tree, ["derain"]).train:
        assert item.input is not None
        assert item.input.name.replace("_rainy", "") == item.target.name.replace("_gt", "")


@pytest.mark.parametrize("task", ["denoise", "derain", "dehaze"])
def test_any_task_alone(tree: Path, task: str) -> None:
    for other in {"denoise", "derain", "dehaze"} - {task}:
        shutil.rmtree(tree / "train" / other)
    assert {item.task.split("_")[0] for item in folders(tree, None).train} == {task}
    assert {item.task.split("_")[0] for item in folders(tree, None).test} == {task}


def test_a_task_that_is_asked_for_must_be_there(tree: Path) -> None:
    shutil.rmtree(tree / "train" / "dehaze")
    with pytest.raises(DataError, match=r"no train images of dehaze: put them in train/dehaze/<SET>/\{input,target\}/"):
        folders(tree, ["denoise", "dehaze"])


def test_a_task_that_is_trained_must_be_tested(tree: Path) -> None:
    shutil.rmtree(tree / "test" / "derain")
    with pytest.raises(DataError, match="no test images of derain"):
        folders(tree, None)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        folders(tmp_path / "nowhere", None)


def test_an_empty_folder_says_what_goes_where(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no training images: put them in train/denoise/<SET>/ or"):
        folders(tmp_path, None)


@pytest.mark.parametrize(
    ("lost", "told"),
    [("input/rain-001_rainy.png", r"rain-001_gt\.png: the pair has no input"), ("target/rain-001_gt.png", "no target")],
)
def test_half_of_a_pair_is_named(tree: Path, lost: str, told: str) -> None:
    (tree / RAIN / lost).unlink()
    with pytest.raises(DataError, match=told):
        folders(tree, None)


def test_a_pair_of_different_sizes_is_named_with_both_sizes(tree: Path) -> None:
    paint(tree / RAIN / "input" / "rain-002_rainy.png", height=96, width=100)
    with pytest.raises(DataError, match=r"rain-002_rainy\.png: 100x96 pixels, but its target has 80x96"):
        folders(tree, None)


def test_an_image_smaller_than_the_patch_is_named(tree: Path) -> None:
    with pytest.raises(DataError, match=r"80x96 pixels, smaller than the 88x88 needed.*data check"):
        folders(tree, ["denoise"], patch=88)
    assert folders(tree, ["denoise"], patch=80).train


@pytest.mark.parametrize(("split", "needed"), [("train", "64x64"), ("test", "16x16")])
def test_an_image_of_one_pixel_is_named(tree: Path, split: str, needed: str) -> None:
    paint(tree / split / "denoise" / "BSD" / "dot.png", height=1, width=1)
    with pytest.raises(DataError, match=rf"dot\.png: 1x1 pixels, smaller than the {needed} needed"):
        folders(tree, None)


def test_what_is_no_image_is_named(tree: Path) -> None:
    (tree / "train" / "denoise" / "BSD" / "c.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"c\.png: cannot be read"):
        folders(tree, None)


def test_other_files_are_passed_over(tree: Path) -> None:
    (tree / "train" / "denoise" / "BSD" / "LICENSE.txt").write_text("")
    (tree / "train" / "denoise" / "BSD" / "._a.jpg").write_text("")
    (tree / "train" / "denoise" / "README").write_text("")
    assert {item.name for item in folders(tree, ["denoise"]).train} == {"a.jpg", "b.PNG"}
