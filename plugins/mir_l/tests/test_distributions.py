"""Layouts in which data sets are handed out, and names that are those of sets or only look like them."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_folder import paint
from test_prepare import laid, run

from prunekit.errors import DataError
from prunekit_mir_l.known_sets import known_name
from prunekit_mir_l.prepare import prepare


def place(out: Path, folder: Path) -> str:
    return str(folder.relative_to(out))


@pytest.mark.parametrize(
    "name",
    [
        *("reviewed", "followed", "screenshots", "portraits", "indoor_photos", "my_kodak_trip", "Waterloo 2019"),
        *("limits", "DIV2K_train_LR_bicubic", "Urban100_LR", "its_a_dog", "live12"),
    ],
)
def test_names_that_only_look_like_a_sets_tell_nothing(name: str) -> None:
    assert known_name(name) is None


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        *(("OTS_BETA", "OTS"), ("RESIDE-OTS", "OTS"), ("its", "ITS"), ("SOTS-Test", "SOTS"), ("indoor", "SOTS_indoor")),
        *(("exploration_database_and_code", "WED"), ("WaterlooExplorationDatabase", "WED"), ("CBSD68", "BSD68")),
        *(("rain_data_test_Light", "Rain100L"), ("RainTrainH", "Rain100H"), ("rain100L-old", "Rain100L")),
        *(("kodak24", "Kodak24"), ("urban100", "Urban100"), ("DIV2K_valid_HR", "DIV2K"), ("my_BSD400", "BSD400")),
    ],
)
def test_names_of_sets_are_known_as_they_are_written(name: str, dataset: str) -> None:
    told = known_name(name)
    assert told is not None and told[2] == dataset


def test_all_sets_below_a_folder_are_found(downloads: Path, tmp_path: Path) -> None:
    for name in ("indoor/nyuhaze500/gt/1.png", "indoor/nyuhaze500/hazy/1_1.png", "outdoor/gt/2.png"):
        paint(downloads / "SOTS" / name)
    paint(downloads / "SOTS" / "outdoor" / "hazy" / "2_1.png")
    done = list(prepare(downloads / "SOTS", tmp_path / "out"))
    assert [place(tmp_path / "out", one.folder) for one in done] == ["test/dehaze/SOTS_indoor", "test/dehaze/SOTS"]
    assert [one.made for one in done] == [2, 2]


def test_a_set_of_photographs_beside_pairs_is_one_too(downloads: Path, tmp_path: Path) -> None:
    for name in ("BSD400/a.jpg", "Rain13K/input/1.png", "Rain13K/target/1.png", "__MACOSX/readme.txt"):
        path = downloads / "all" / name
        paint(path) if path.suffix != ".txt" else path.parent.mkdir()
    done = list(prepare(downloads / "all", tmp_path / "out"))
    assert [place(tmp_path / "out", one.folder) for one in done] == ["train/denoise/BSD400", "train/derain/Rain13K"]


def test_photographs_of_several_sets_are_kept_apart(downloads: Path, tmp_path: Path) -> None:
    for name in ("BSD400/a.jpg", "WED/a.jpg"):
        paint(downloads / "all" / name)
    done = list(prepare(downloads / "all", tmp_path / "out"))
    assert [place(tmp_path / "out", one.folder) for one in done] == ["train/denoise/BSD400", "train/denoise/WED"]


def test_what_is_left_of_several_sets_is_told_after_the_others(downloads: Path, tmp_path: Path) -> None:
    for name in ("cover.png", "holiday/b.png", "Rain13K/input/1.png", "Rain13K/target/1.png", "WED/c.png"):
        paint(downloads / "all" / name)
    with pytest.raises(
        DataError, match=r"not all was prepared.*images beside its sets: cover\.png\..*holiday was taken"
    ):
        list(prepare(downloads / "all", tmp_path / "out"))
    made = sorted(place(tmp_path / "out", path.parent) for path in (tmp_path / "out").rglob("MANIFEST.json"))
    assert made == ["train/denoise/WED", "train/derain/Rain13K"]


def test_a_list_may_name_images_of_several_sets(downloads: Path, tmp_path: Path) -> None:
    for name in ("BSD400/a.jpg", "BSD400/b.jpg", "WED/c.jpg"):
        paint(downloads / "all" / name)
    done = list(prepare(downloads / "all", tmp_path / "out", only=["a.jpg", "c"]))
    assert [(one.made, one.unlisted) for one in done] == [(1, ()), (1, ())]
    with pytest.raises(DataError, match=r"No set has these names of the list: d\.jpg\.$"):
        list(prepare(downloads / "all", tmp_path / "out", only=["a.jpg", "d.jpg"]))


def test_folders_for_pairs_that_are_empty_are_told(downloads: Path, tmp_path: Path) -> None:
    for name in ("input", "target"):
        (downloads / "all" / "Rain13K" / name).mkdir(parents=True)
    with pytest.raises(DataError, match="all holds no images"):
        run(downloads / "all", tmp_path / "out")


def test_pairs_of_hazy_images_are_dehazed(downloads: Path, tmp_path: Path) -> None:
    for name in ("hazy", "GT"):
        paint(downloads / "RESIDE-6K" / "train" / name / "1.png")
    done = run(downloads / "RESIDE-6K" / "train", tmp_path / "out", split="train", name="X")
    assert place(tmp_path / "out", done.folder) == "train/dehaze/X"
    assert laid(done.folder)[1:] == ["input/1_hazy.png", "target/1_gt.png"]


def test_images_of_low_resolution_are_not_taken_for_clean(downloads: Path, tmp_path: Path) -> None:
    for name in ("img_001_SRF_2_HR.png", "img_001_SRF_2_LR.png"):
        paint(downloads / "Urban100" / "image_SRF_2" / name)
    done = run(downloads / "Urban100" / "image_SRF_2", tmp_path / "out")
    assert laid(done.folder) == ["MANIFEST.json", "img_001_SRF_2_HR.png"]
    assert [path.name for path in done.small] == ["img_001_SRF_2_LR.png"]
    small = downloads / "DIV2K" / "DIV2K_train_LR_bicubic"
    for name in ("DIV2K_train_HR/0001.png", "DIV2K_train_LR_bicubic/X2/0001x2.png", "DIV2K_valid_HR/0801.png"):
        paint(downloads / "DIV2K" / name)
    with pytest.raises(DataError, match=r"LR_bicubic holds images of low resolution \(LR\) by its name"):
        run(small, tmp_path / "out", split="train", name="x")
    assert not (tmp_path / "out" / "train").exists()


def test_photographs_that_are_called_lr_by_themselves_are_taken(downloads: Path, tmp_path: Path) -> None:
    paint(downloads / "lr" / "WED" / "holiday-LR.jpg")
    assert run(downloads / "lr" / "WED", tmp_path / "out").made == 1


@pytest.mark.parametrize("rainy", ["norain-001x2.png", "norain-001.png", "rain-001.png"])
def test_rain100_as_its_authors_hand_it_out(downloads: Path, tmp_path: Path, rainy: str) -> None:
    paint(downloads / "rain_data_test_Light" / "norain" / "norain-001.png")
    paint(downloads / "rain_data_test_Light" / "rain" / "X2" / rainy)
    done = run(downloads / "rain_data_test_Light", tmp_path / "out")
    assert (done.kind, done.halves, place(tmp_path / "out", done.folder)) == ("rain100", (), "test/derain/Rain100L")
    assert laid(done.folder)[1:] == ["input/001_rainy.png", "target/001_gt.png"]
    assert (done.folder / "input/001_rainy.png").readlink().name == rainy


def test_rain100_in_one_folder_called_rain(downloads: Path, tmp_path: Path) -> None:
    for name in ("rain-001.png", "norain-001.png"):
        paint(downloads / "Rain100L" / "rain" / name)
    done = run(downloads / "Rain100L", tmp_path / "out", split="test")
    assert (done.folder / "input/001_rainy.png").readlink().name == "rain-001.png"


def test_ots_with_folders_inside_clear_and_haze(downloads: Path, tmp_path: Path) -> None:
    for name in ("clear/clear_images/0005.jpg", "haze/OTS/0005_0.8_0.04.jpg"):
        paint(downloads / "OTS_ALPHA" / name)
    done = run(downloads / "OTS_ALPHA", tmp_path / "out")
    assert (done.kind, done.halves, place(tmp_path / "out", done.folder)) == ("reside", (), "train/dehaze/OTS")


def test_links_that_lead_back_up_do_not_go_on_for_ever(downloads: Path, tmp_path: Path) -> None:
    paint(downloads / "WED" / "deep" / "a.png")
    (downloads / "WED" / "deep" / "up").symlink_to(downloads)
    assert run(downloads / "WED", tmp_path / "out").made == 1
