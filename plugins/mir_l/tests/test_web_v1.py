"""The test set web-v1: the manifest's images where the encoders are its own, named differences where they are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_codecs import scene

from prunekit.errors import DataError
from prunekit_mir_l import web_manifest, web_v1
from prunekit_mir_l.codecs import versions
from prunekit_mir_l.dataset import evaluation_pair
from prunekit_mir_l.embedded import embedded
from prunekit_mir_l.folders import folders
from prunekit_mir_l.images import read_rgb
from prunekit_mir_l.items import Item
from prunekit_mir_l.web_manifest import encoders, make_manifest, manifest, sha256, web_set

pytestmark = pytest.mark.skipif("avif" not in versions(), reason="this Pillow has no AVIF")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        home = tmp_path / "data" / split / "denoise" / "Mine"
        home.mkdir(parents=True)
        Image.fromarray(scene(96, 80)).save(home / "a.png")
    return tmp_path / "data"


@pytest.fixture
def known(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    made = make_manifest([root / "test" / "denoise" / "Mine" / "a.png"])
    monkeypatch.setattr(web_manifest, "manifest", lambda: made)
    return made


def test_the_embedded_photographs_give_the_manifests_images() -> None:
    if versions() != manifest()["encoders"]:
        pytest.skip(f"the manifest is of other encoders: {encoders()}")
    paths = dict.fromkeys(item.target for item in embedded(["web"], []).test)
    smallest = min(paths, key=lambda path: read_rgb(path).size)
    (one,) = make_manifest([smallest])["photographs"].values()
    assert one == manifest()["photographs"][smallest.stem]


def test_the_manifest_knows_the_embedded_photographs_and_every_chain() -> None:
    photographs = manifest()["photographs"]
    assert {"chelsea", "coffee", "grace_hopper"} <= set(photographs)
    assert all(tuple(entry["images"]) == web_v1.NAMES for entry in photographs.values())
    hashes = [h for entry in photographs.values() for h in (entry["clean"], *entry["images"].values())]
    assert len(set(hashes)) == len(photographs) * 9


def test_only_uploads_depend_on_the_name() -> None:
    assert [name for name in web_v1.NAMES if web_v1.chain(name, "a") != web_v1.chain(name, "b")] == ["upload"]
    assert web_v1.chain("upload", "a") == web_v1.chain("upload", "a")


def test_images_that_are_the_manifests_are_said_to_be(root: Path, known: dict[str, Any]) -> None:
    (verdict,) = web_set(root, None)
    assert (verdict.text, verdict.differs) == ("a.png: 8 of 8 images bit-identical", False)
    assert encoders().endswith(f"avif {versions()['avif']}")


def test_another_pixel_is_named_with_its_image_and_encoder(root: Path, known: dict[str, Any]) -> None:
    known["photographs"]["a"]["images"]["upload"] = "0"
    known["encoders"]["webp"] = "0.1"
    (verdict,) = web_set(root, None)
    assert (verdict.text, verdict.differs) == ("a.png: 7 of 8 images bit-identical; not upload", True)
    assert "(manifest: 0.1)" in encoders()


def test_another_photograph_of_the_name_and_an_unknown_one_are_told(root: Path, known: dict[str, Any]) -> None:
    home = root / "test" / "denoise" / "Mine"
    Image.fromarray(scene(96, 80)[::-1]).save(home / "a.png")
    Image.fromarray(scene(40, 40)).save(home / "b.png")
    other, unknown = web_set(root, None)
    assert other.differs and "not those of the manifest (another photograph" in other.text
    assert (unknown.text, unknown.differs) == ("b.png: not in the manifest", False)


def test_the_files_are_the_test_images_of_a_run(root: Path, known: dict[str, Any]) -> None:
    on_the_fly = {item.task: evaluation_pair(item) for item in folders(root, ["web"]).test}
    assert list(on_the_fly) == [f"web_{name}" for name in web_v1.NAMES]
    list(web_set(root, root))
    items = folders(root, ["web"]).test
    assert {(item.task, item.dataset) for item in items} == {("web", "web-v1-Mine")}
    for item in items:
        given, target = evaluation_pair(item)
        expected = on_the_fly["web_" + item.target.stem.removeprefix("a_")]
        assert np.array_equal(given, expected[0]) and np.array_equal(target, expected[1])


def test_no_files_are_overwritten(root: Path, known: dict[str, Any]) -> None:
    list(web_set(root, root))
    with pytest.raises(DataError, match=r"web-v1-Mine is there already: remove it, or give another folder"):
        web_set(root, root)


def test_photographs_that_would_become_one_are_refused(root: Path, tmp_path: Path) -> None:
    home = root / "test" / "denoise" / "Mine"
    Image.fromarray(scene(24, 24)).save(home / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg and a\.png would both become a_\*\.png: rename one of them"):
        web_set(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no photographs in test/denoise/<SET>/"):
        web_set(tmp_path / "nowhere", None)


def test_the_hash_is_of_the_pixels(root: Path) -> None:
    pixels = scene(4, 4)
    assert sha256(pixels) == sha256(pixels[::1].copy()) != sha256(pixels[::-1])


def test_jpeg_has_test_sets_of_its_own_and_borrows_clean_photographs(root: Path) -> None:
    borrowed = folders(root, ["jpeg"])
    assert {(item.task, item.dataset) for item in borrowed.train} == {("jpeg_5-95", "Mine")}
    assert [item.task for item in borrowed.test] == ["jpeg_10", "jpeg_20", "jpeg_30", "jpeg_40"]
    home = root / "test" / "jpeg" / "LIVE1"
    home.mkdir(parents=True)
    Image.fromarray(scene(48, 48)).save(home / "bikes.bmp")
    own = folders(root, ["jpeg"]).test
    assert {(item.dataset, item.name) for item in own} == {("LIVE1", "bikes.bmp")}
    assert replace(own[0], task="x") == Item("x", "LIVE1", home / "bikes.bmp")


def test_clean_photographs_that_are_missing_are_asked_for_where_they_go(root: Path) -> None:
    (root / "test" / "denoise" / "Mine" / "a.png").unlink()
    with pytest.raises(DataError, match=r"holds no test images of web: put them in test/denoise/<SET>/"):
        folders(root, ["web"])
