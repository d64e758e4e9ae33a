"""Data sets as they are handed out become the published layout: by links, once, and again after an interruption."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from data_folder import paint

from prunekit.errors import DataError
from prunekit_mir_l import prepare as preparing
from prunekit_mir_l.check import check, still_missing
from prunekit_mir_l.folders import folders
from prunekit_mir_l.images import read_rgb
from prunekit_mir_l.manifest import differing
from prunekit_mir_l.prepare import Prepared, prepare


def run(source: Path, out: Path, **options: object) -> Prepared:
    (one,) = prepare(source, out, **options)  # type: ignore[arg-type]
    return one


def laid(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def test_rain_pairs_of_one_folder(downloads: Path, tmp_path: Path) -> None:
    for name in ("rain-001.png", "norain-001.png", "rain-002.png", "norain-002.png", "norain-009.png"):
        paint(downloads / "Rain100L" / name)
    done = run(downloads / "Rain100L", tmp_path / "out", split="test")
    assert (done.kind, done.made, done.there, [p.name for p in done.halves]) == ("rain100", 4, 0, ["norain-009.png"])
    assert laid(tmp_path / "out") == [
        "test/derain/Rain100L/MANIFEST.json",
        "test/derain/Rain100L/input/001_rainy.png",
        "test/derain/Rain100L/input/002_rainy.png",
        "test/derain/Rain100L/target/001_gt.png",
        "test/derain/Rain100L/target/002_gt.png",
    ]
    given = tmp_path / "out" / "test/derain/Rain100L/input/001_rainy.png"
    assert given.samefile(downloads / "Rain100L" / "rain-001.png")
    assert not given.readlink().is_absolute()


def test_several_sets_of_pairs_in_one_folder(downloads: Path, tmp_path: Path) -> None:
    for name in ("Rain100H", "Rain100L"):
        paint(downloads / "test" / name / "input" / "1.png")
        paint(downloads / "test" / name / "target" / "1.jpg")
    done = list(prepare(downloads / "test", tmp_path / "out"))
    assert [(one.kind, one.folder.name, one.made) for one in done] == [
        ("pairs", "Rain100H", 2),
        ("pairs", "Rain100L", 2),
    ]
    assert laid(tmp_path / "out" / "test/derain/Rain100H")[1:] == ["input/1_rainy.png", "target/1_gt.jpg"]


def test_many_hazy_images_share_a_clear_one(downloads: Path, tmp_path: Path) -> None:
    paint(downloads / "OTS" / "clear" / "0005.jpg")
    for name in ("0005_0.8_0.04.jpg", "0005_1_0.2.JPG", "0006_1_0.2.jpg"):
        paint(downloads / "OTS" / "part1" / name)
    done = run(downloads / "OTS", tmp_path / "out")
    assert (done.kind, done.made, [p.name for p in done.halves]) == ("reside", 4, ["0006_1_0.2.jpg"])
    assert laid(tmp_path / "out" / "train/dehaze/OTS")[1:] == [
        "input/0005_0.8_0.04_hazy.jpg",
        "input/0005_1_0.2_hazy.jpg",
        "target/0005_0.8_0.04_gt.jpg",
        "target/0005_1_0.2_gt.jpg",
    ]


def test_transmission_maps_are_no_hazy_images(downloads: Path, tmp_path: Path) -> None:
    for name in ("clear/1.png", "hazy/1_1_0.9.png", "trans/1_1.png"):
        paint(downloads / "ITS" / name)
    done = run(downloads / "ITS", tmp_path / "out")
    assert (done.kind, done.halves) == ("reside", ())
    assert laid(done.folder)[1:] == ["input/1_1_0.9_hazy.png", "target/1_1_0.9_gt.png"]


def test_linked_folders_are_looked_into(downloads: Path, tmp_path: Path) -> None:
    paint(tmp_path / "disk" / "1.png")
    paint(downloads / "ITS" / "hazy" / "1_1_0.9.png")
    (downloads / "ITS" / "clear").symlink_to(tmp_path / "disk")
    done = run(downloads / "ITS", tmp_path / "out")
    assert (done.kind, done.made, done.halves) == ("reside", 2, ())


def test_clear_images_with_a_border_are_cut(downloads: Path, tmp_path: Path) -> None:
    paint(downloads / "SOTS" / "indoor" / "gt" / "1400.png", height=116, width=100)
    paint(downloads / "SOTS" / "indoor" / "hazy" / "1400_1.png", height=96, width=80)
    done = run(downloads / "SOTS", tmp_path / "out", copy=True)
    target = tmp_path / "out" / "test/dehaze/SOTS_indoor/target/1400_1_gt.png"
    assert (done.cropped, target.is_symlink()) == (1, False)
    whole = read_rgb(downloads / "SOTS" / "indoor" / "gt" / "1400.png")
    assert np.array_equal(read_rgb(target), whole[10:-10, 10:-10])


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("CBSD68", "test/denoise/BSD68"),
        ("BSD400", "train/denoise/BSD400"),
        ("WED", "train/denoise/WED"),
        ("Urban100_HR", "test/denoise/Urban100"),
        ("kodak", "test/denoise/Kodak24"),
        ("DIV2K_train_HR", "train/denoise/DIV2K"),
        ("LIVE1", "test/jpeg/LIVE1"),
    ],
)
def test_folders_of_photographs_are_known_by_name(downloads: Path, tmp_path: Path, name: str, place: str) -> None:
    paint(downloads / name / "img_001_SRF_2_HR.PNG")
    (downloads / name / "readme.txt").write_text("hello")
    done = run(downloads / name, tmp_path / "out")
    assert (done.folder, [p.name for p in done.others]) == (tmp_path / "out" / place, ["readme.txt"])
    assert (done.folder / "img_001_SRF_2_HR.PNG").is_file()


def test_what_is_prepared_can_be_trained_on(downloads: Path, tmp_path: Path) -> None:
    paint(downloads / "photos" / "ü.png")
    for split in ("train", "test"):
        run(downloads / "photos", tmp_path / "out", split=split, name="mine")
    items = folders(tmp_path / "out", None, [25])
    assert (len(items.train), len(items.test), items.test[0].dataset) == (3, 1, "mine")


def test_a_list_chooses_and_what_it_lacks_is_told(downloads: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        paint(downloads / "WED" / name)
    done = run(downloads / "WED", tmp_path / "out", only=["a.png", "c", "d"])
    assert (done.made, done.unlisted) == (2, ("d",))
    assert laid(done.folder) == ["MANIFEST.json", "a.png", "c.png"]


def test_the_same_call_finishes_what_was_interrupted(
    downloads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        paint(downloads / "WED" / name)
    bring, calls = preparing._bring, []

    def stopped(*args: object) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        bring(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(preparing, "_bring", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(downloads / "WED", tmp_path / "out")
    monkeypatch.undo()
    assert laid(tmp_path / "out" / "train/denoise/WED") == ["a.png", "b.png"]
    done = run(downloads / "WED", tmp_path / "out")
    assert (done.made, done.there) == (1, 2)
    held = (done.folder / "MANIFEST.json").read_bytes()
    again = run(downloads / "WED", tmp_path / "out")
    assert (again.made, again.there, (done.folder / "MANIFEST.json").read_bytes()) == (0, 3, held)


def test_another_file_is_never_overwritten(downloads: Path, tmp_path: Path) -> None:
    paint(downloads / "WED" / "a.png")
    mine = tmp_path / "out" / "train/denoise/WED/a.png"
    paint(mine, height=7)
    before = mine.read_bytes()
    with pytest.raises(DataError, match=r"a\.png is there already and is not"):
        run(downloads / "WED", tmp_path / "out")
    assert mine.read_bytes() == before


def test_the_manifest_has_sizes_and_hashes_and_finds_a_flipped_byte(downloads: Path, tmp_path: Path) -> None:
    (downloads / "WED").mkdir(parents=True)
    (downloads / "WED" / "a.png").write_bytes(b"hello")
    done = run(downloads / "WED", tmp_path / "out", copy=True)
    held = json.loads((done.folder / "MANIFEST.json").read_text())
    del held["files"]["a.png"]["mtime_ns"]
    digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert held == {"kind": "clean", "count": 1, "files": {"a.png": {"from": "a.png", "bytes": 5, "sha256": digest}}}
    assert list(differing(done.folder)) == []
    (done.folder / "a.png").write_bytes(b"hellp")
    assert [p.split(": ")[1] for p in differing(done.folder)] == ["its contents are not those of MANIFEST.json."]
    (done.folder / "a.png").unlink()
    assert [p.split(": ")[1] for p in differing(done.folder)] == ["MANIFEST.json has it, and it is not there."]


def test_check_reads_the_manifest_if_asked(downloads: Path, tmp_path: Path) -> None:
    paint(downloads / "WED" / "a.png")
    done = run(downloads / "WED", tmp_path / "out", copy=True)
    paint(done.folder / "a.png", height=100)
    assert (check(tmp_path / "out").problems, check(tmp_path / "out", hashes=True).problems) == (0, 1)


def test_what_the_paper_used_and_is_not_there_is_named(downloads: Path, tmp_path: Path) -> None:
    paint(downloads / "Urban100" / "a.png")
    run(downloads / "Urban100", tmp_path / "out")
    lines = still_missing(tmp_path / "out")
    assert len(lines) == 8
    assert "test/denoise Urban100: 1 of 100" in lines
    assert "train/dehaze OTS: 0 of 72135" in lines


def test_mistakes_are_told_and_nothing_is_written(downloads: Path, tmp_path: Path) -> None:
    (downloads / "empty").mkdir(parents=True)
    paint(downloads / "mine" / "a.png")
    paint(downloads / "clash" / "x" / "a.png")
    paint(downloads / "clash" / "y" / "a.png")
    out = tmp_path / "out"
    for source, options, told in (
        ("nowhere", {}, "is not a folder: give the folder that the data set was unpacked into"),
        ("empty", {}, r"holds no images\. Kinds: rain100 \(rain-NNN\.png with"),
        ("mine", {}, "was taken for clean; .* add --split train or test and --name SET"),
        ("mine", {"kind": "resid"}, "kind 'resid' is unknown: did you mean 'reside'"),
        ("mine", {"kind": "reside"}, r"is not of the kind 'reside': it holds a\.png\. Kinds"),
        ("mine", {"split": "tset"}, "split 'tset' is unknown: did you mean 'test'"),
        ("clash", {"split": "test", "name": "x"}, "would both become"),
    ):
        with pytest.raises(DataError, match=told):
            run(downloads / source, out, **options)
    with pytest.raises(DataError, match="lies in .*, which is read"):
        run(downloads / "mine", downloads / "mine" / "out")
    assert not out.exists()


def test_images_of_one_name_are_not_taken_for_one(downloads: Path, tmp_path: Path) -> None:
    for name in ("input/1.png", "target/1.png", "target/1.jpg"):
        paint(downloads / "Rain13K" / name)
    with pytest.raises(
        DataError, match=r"target/1\.jpg and target/1\.png have one name and would become one image \(1 "
    ):
        run(downloads / "Rain13K", tmp_path / "out", split="test")
    assert not (tmp_path / "out").exists()


def test_a_broken_image_does_not_stop_the_others(downloads: Path, tmp_path: Path) -> None:
    for name in ("input/1.png", "target/1.png", "input/2.png", "target/2.png"):
        paint(downloads / "Rain13K" / name)
    (downloads / "Rain13K" / "target" / "2.png").write_bytes(b"PNG?")
    done = run(downloads / "Rain13K", tmp_path / "out", split="test")
    assert done.made == 2
    assert [text.split("/")[-1] for text in done.broken] == [
        "2.png: cannot be read (not an image). The file may be truncated: fetch it again, or remove it."
    ]


def test_a_cut_image_that_is_another_is_told(downloads: Path, tmp_path: Path) -> None:
    paint(downloads / "SOTS" / "indoor" / "gt" / "1400.png", height=116, width=100)
    paint(downloads / "SOTS" / "indoor" / "hazy" / "1400_1.png", height=96, width=80)
    done = run(downloads / "SOTS", tmp_path / "out")
    assert run(downloads / "SOTS", tmp_path / "out").there == 2
    paint(done.folder / "target" / "1400_1_gt.png", height=90, width=80)
    with pytest.raises(DataError, match=r"1400_1_gt\.png is there already and is not"):
        run(downloads / "SOTS", tmp_path / "out")


@pytest.mark.slow
def test_a_killed_copy_is_finished_by_the_same_command(downloads: Path, tmp_path: Path) -> None:
    (downloads / "WED").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(60):
        (downloads / "WED" / f"{index:02d}.png").write_bytes(rng.bytes(2_000_000))
    command = [sys.executable, "-m", "prunekit", "mir_l", "data", "prepare", str(downloads / "WED"), "--copy"]
    folder, kills = tmp_path / "out" / "train/denoise/WED", 0
    for count in (1, 9, 33, 57):
        child = subprocess.Popen([*command, "-o", str(tmp_path / "out")])
        while child.poll() is None and len(list(folder.glob("*.png"))) < count:
            time.sleep(0.001)
        child.kill()
        kills += child.wait() == -signal.SIGKILL
    assert kills > 0
    subprocess.run([*command, "-o", str(tmp_path / "out")], check=True)
    assert sorted(p.name for p in folder.iterdir()) == [*(f"{i:02d}.png" for i in range(60)), "MANIFEST.json"]
    assert list(differing(folder)) == []
    for path in (downloads / "WED").iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()
