"""The cache of decoded images: shared by forked workers, within its limit, and never seen in a pixel."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prunekit.data import batches
from prunekit_mir_l.cache import ImageCache, image_cache
from prunekit_mir_l.dataset import Crops
from prunekit_mir_l.images import Pixels, read_rgb
from prunekit_mir_l.items import Item

FORK = multiprocessing.get_context("fork")
BYTES = 40 * 48 * 3 + 4


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    for name in "abcd":
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(tmp_path / f"{name}.jpg")
    return sorted(tmp_path.iterdir())


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are decoded from now on, in this process."""
    names = []

    def read(path: Path) -> Pixels:
        names.append(path.name)
        return read_rgb(path)

    monkeypatch.setattr("prunekit_mir_l.cache.read_rgb", read)
    return names


def items(paths: list[Path]) -> list[Item]:
    return [Item(f"denoise_{sigma}", "set", path) for sigma in (15, 50) for path in paths]


def in_a_fork(call: Callable[[], object]) -> int | None:
    child = FORK.Process(target=call)
    child.start()
    child.join(60)
    return child.exitcode


def test_each_file_is_decoded_once(paths: list[Path], decoded: list[str]) -> None:
    cache = image_cache(items(paths), 4 * BYTES)
    for path in paths * 2:
        assert np.array_equal(cache.read(path), read_rgb(path))
    assert decoded == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]


def test_a_full_cache_holds_the_images_that_are_visited_most(paths: list[Path], decoded: list[str]) -> None:
    visits = [*items(paths), Item("derain", "set", paths[2], paths[3])]
    cache = image_cache(visits, 2 * BYTES)
    for path in paths * 2:
        assert np.array_equal(cache.read(path), read_rgb(path))
    assert decoded == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "a.jpg", "b.jpg"]


def test_an_image_that_is_too_large_leaves_room_for_the_next(
    tmp_path: Path, paths: list[Path], decoded: list[str]
) -> None:
    Image.new("RGB", (200, 200)).save(tmp_path / "A.png")
    cache = image_cache(items([tmp_path / "A.png", *paths]), BYTES)
    for name in ("a.jpg", "A.png", "a.jpg", "A.png"):
        cache.read(tmp_path / name)
    assert decoded == ["a.jpg", "A.png", "A.png"]


def test_no_limit_at_all_decodes_each_time(paths: list[Path], decoded: list[str]) -> None:
    cache = image_cache(items(paths), 0)
    assert np.array_equal(cache.read(paths[0]), cache.read(paths[0]))
    assert decoded == ["a.jpg"] * 2


def test_what_a_fork_decoded_is_there_for_all(paths: list[Path], decoded: list[str]) -> None:
    cache = image_cache(items(paths), 4 * BYTES)
    assert in_a_fork(lambda: cache.read(paths[1])) == 0
    assert np.array_equal(cache.read(paths[1]), read_rgb(paths[1]))
    assert decoded == []


def test_a_fork_that_dies_while_it_decodes_leaves_nothing_half_done(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = image_cache(items(paths), 4 * BYTES)
    with monkeypatch.context() as patch:
        patch.setattr("prunekit_mir_l.cache.read_rgb", lambda path: os._exit(9))
        assert in_a_fork(lambda: cache.read(paths[0])) == 9
    assert np.array_equal(cache.read(paths[0]), read_rgb(paths[0]))


def test_a_file_that_was_replaced_by_another_size_is_decoded(paths: list[Path]) -> None:
    cache = image_cache(items(paths), 4 * BYTES)
    Image.new("RGB", (50, 60), (1, 2, 3)).save(paths[0].with_suffix(".png"))
    paths[0].with_suffix(".png").replace(paths[0])
    assert cache.read(paths[0]).shape == (60, 50, 3)
    assert np.array_equal(cache.read(paths[1]), read_rgb(paths[1]))


def test_held_pixels_cannot_be_written_to(paths: list[Path]) -> None:
    with pytest.raises(ValueError, match="read-only"):
        image_cache(items(paths), 4 * BYTES).read(paths[0])[0, 0] = 1


def test_copies_share_the_limit_and_hold_nothing_yet(paths: list[Path], decoded: list[str]) -> None:
    cache = image_cache(items(paths), 4 * BYTES, copies=2)
    cache.read(paths[0])
    copy: ImageCache = pickle.loads(pickle.dumps(cache))
    for path in paths * 2:
        assert np.array_equal(copy.read(path), read_rgb(path))
    assert decoded == ["a.jpg", *("a.jpg", "b.jpg", "c.jpg", "d.jpg"), *("c.jpg", "d.jpg")]
    assert len(pickle.dumps(cache)) < BYTES  # no pixels go through a pipe


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("held", [0, 2, 4])
def test_no_pixel_depends_on_workers_or_cache(paths: list[Path], workers: int, held: int) -> None:
    def take(limit: int, workers: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        crops = Crops(items(paths), 32, 0, "dihedral", image_cache(items(paths), limit))
        return list(itertools.islice(batches(crops, size=4, seed=0, clock=0, workers=workers), 6))  # three epochs

    for (given, target), (seen, clean) in zip(take(held * BYTES, workers), take(0, 0), strict=True):
        assert torch.equal(given, seen) and torch.equal(target, clean)
        assert given.dtype == target.dtype == torch.uint8


def test_pixels_that_are_only_half_visible_yet_are_not_used(paths: list[Path]) -> None:
    cache = image_cache(items(paths), 4 * BYTES)
    whole = cache.read(paths[0]).copy()
    place = cache.places[paths[0]]
    cache._held[place.end - 9] ^= 255
    assert not np.array_equal(cache.read(paths[0]), whole)  # this process has seen it whole, and looks no more
    cache._whole.clear()  # as in another process
    assert np.array_equal(cache.read(paths[0]), whole)


def test_no_memory_asked_for_reads_no_headers(tmp_path: Path) -> None:
    assert not image_cache(items([tmp_path / "nowhere.png"]), 0).places


def test_a_copy_shares_the_memory(paths: list[Path]) -> None:
    cache = image_cache(items(paths), 4 * BYTES)
    assert copy.deepcopy(cache) is cache
