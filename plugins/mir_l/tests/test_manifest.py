"""What preparing again leaves whole: copies instead of links, manifests, lists that fit nothing, other names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from data_folder import paint
from test_prepare import laid, run

from prunekit.errors import DataError
from prunekit_mir_l.check import check
from prunekit_mir_l.manifest import differing
from prunekit_mir_l.prepare import prepare


def test_copies_take_the_place_of_links_and_outlive_the_download(downloads: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        paint(downloads / "WED" / name)
    linked = run(downloads / "WED", tmp_path / "out")
    copied = run(downloads / "WED", tmp_path / "out", copy=True)
    assert [(one.made, one.there) for one in (linked, copied)] == [(2, 0), (2, 0)]
    again = run(downloads / "WED", tmp_path / "out", copy=True)
    assert (again.made, again.there) == (0, 2)
    held = (downloads / "WED" / "a.png").read_bytes()
    shutil.rmtree(downloads / "WED")
    assert (copied.folder / "a.png").read_bytes() == held
    assert list(differing(copied.folder)) == []


def test_a_link_to_another_file_is_not_replaced(downloads: Path, tmp_path: Path) -> None:
    paint(downloads / "WED" / "a.png")
    paint(tmp_path / "mine.png", height=7)
    link = tmp_path / "out" / "train/denoise/WED/a.png"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "mine.png")
    with pytest.raises(DataError, match=r"a\.png is there already and is not"):
        run(downloads / "WED", tmp_path / "out", copy=True)
    assert link.readlink() == tmp_path / "mine.png"


def test_a_list_that_fits_nothing_and_pairs_that_are_all_broken_are_named(downloads: Path, tmp_path: Path) -> None:
    paint(downloads / "WED" / "a.png")
    done = run(downloads / "WED", tmp_path / "out", only=["x/b.png"])
    assert (done.made, done.unlisted) == (0, ("x/b.png",))
    for name in ("input/1.png", "target/1.png"):
        (downloads / "Rain13K" / name).parent.mkdir(parents=True)
        (downloads / "Rain13K" / name).write_bytes(b"PNG?")
    done = run(downloads / "Rain13K", tmp_path / "out")
    assert (done.made, len(done.broken)) == (0, 1)
    assert not (tmp_path / "out").exists()


def test_a_list_may_have_folders_before_the_names(downloads: Path, tmp_path: Path) -> None:
    paint(downloads / "OTS" / "clear" / "1.png")
    for name in ("part1/1_0.8.png", "part2/1_0.9.png", "part2/1_1.png"):
        paint(downloads / "OTS" / name)
    lines = ["synthetic/part1/1_0.8.png", "1_0.9", "part3/1_7.png"]
    done = run(downloads / "OTS", tmp_path / "out", only=lines)
    assert done.unlisted == ("part3/1_7.png",)
    assert laid(done.folder / "input") == ["1_0.8_hazy.png", "1_0.9_hazy.png"]


def test_of_files_of_one_name_a_list_means_those_in_its_folders(downloads: Path, tmp_path: Path) -> None:
    for name in ("x/a.png", "y/a.png", "y/b.png"):
        paint(downloads / "WED" / name)
    done = run(downloads / "WED", tmp_path / "out", only=["wed/y/a.png"])
    assert laid(done.folder) == ["MANIFEST.json", "a.png"]
    assert (done.folder / "a.png").samefile(downloads / "WED" / "y" / "a.png")


@pytest.mark.parametrize("name", ["a/b", "../../esc", "..", ".", "", "a\\b"])
def test_names_that_lead_elsewhere_are_refused(downloads: Path, tmp_path: Path, name: str) -> None:
    paint(downloads / "WED" / "a.png")
    with pytest.raises(DataError, match="is no name of a set: give one that a folder may have, without slashes"):
        list(prepare(downloads / "WED", tmp_path / "out", name=name))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content", ["{}", "[]", "not JSON", '{"files": ["a.png"]}', '{"files": {"a.png": {"size": 3}}}']
)
def test_another_manifest_is_told_and_left_alone(downloads: Path, tmp_path: Path, content: str) -> None:
    paint(downloads / "WED" / "a.png")
    folder = tmp_path / "out" / "train/denoise/WED"
    paint(folder / "mine.png")
    (folder / "MANIFEST.json").write_text(content)
    with pytest.raises(DataError, match=r"MANIFEST\.json is no manifest of `prunekit mir_l data prepare`, and is left"):
        run(downloads / "WED", tmp_path / "out")
    assert (laid(folder), (folder / "MANIFEST.json").read_text()) == (["MANIFEST.json", "mine.png"], content)
    assert check(tmp_path / "out", hashes=True).problems == 1


def test_an_image_that_was_never_in_the_manifest_is_named(downloads: Path, tmp_path: Path) -> None:
    paint(downloads / "WED" / "a.png")
    done = run(downloads / "WED", tmp_path / "out")
    paint(done.folder / "b.png")
    (done.folder / "notes.txt").write_text("mine")
    assert [text.split("WED/")[1] for text in differing(done.folder)] == ["b.png: MANIFEST.json does not have it."]
    assert json.loads((done.folder / "MANIFEST.json").read_text())["count"] == 1
