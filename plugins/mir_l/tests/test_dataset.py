"""Training crops and test images as functions of their keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prunekit.data import generator
from prunekit.errors import DataError
from prunekit_mir_l.cache import image_cache
from prunekit_mir_l.dataset import Crops, as_tensor, evaluation_pair
from prunekit_mir_l.degrade import noise, turn
from prunekit_mir_l.images import Pixels, grey
from prunekit_mir_l.items import SIGMAS, TASKS, Item, item_tasks


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Write an image in which every pixel tells its place."""
    row, col = np.indices((96, 80), dtype=np.uint8)
    Image.fromarray(np.stack([row, col, np.full_like(row, 128)], axis=-1)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def crops(*items: Item, patch: int = 32, seed: int = 0, augment: str = "dihedral") -> Crops:
    return Crops(items, patch, seed, augment, image_cache(items, 2**20))


def everything(picture: Path) -> list[Item]:
    return [Item(name, "set", picture) for task in TASKS for name in item_tasks(task, SIGMAS)]


def test_a_sample_is_a_function_of_seed_epoch_and_index(picture: Path) -> None:
    items = everything(picture)
    one, other = crops(*items), crops(*items)
    for epoch, index in [(3, 4), (0, 0), (0, 4)]:  # `other` draws in the opposite order
        one.sample(epoch, index)
    for epoch, index in [(0, 4), (0, 0), (3, 4)]:
        assert all(torch.equal(a, b) for a, b in zip(one.sample(epoch, index), other.sample(epoch, index), strict=True))
    drawn = [one.sample(0, 0), one.sample(1, 0), replace(one, seed=1).sample(0, 0)]
    assert len({given.numpy().tobytes() for given, _ in drawn}) == 3


@pytest.mark.parametrize("index", range(5))
def test_a_sample_is_a_degraded_crop_beside_its_target(picture: Path, index: int) -> None:
    given, target = crops(*everything(picture)).sample(0, index)
    assert given.dtype == target.dtype == torch.uint8
    assert given.shape == target.shape == (3, 32, 32)
    assert not torch.equal(given, target)
    rows, cols = target[0].unique(), target[1].unique()
    assert rows.tolist() == list(range(rows[0], rows[0] + 32))
    assert cols.tolist() == list(range(cols[0], cols[0] + 32))


def test_both_halves_of_a_pair_are_cropped_and_turned_alike(picture: Path) -> None:
    sampler = crops(Item("derain", "set", picture, picture))
    for epoch in range(10):
        given, target = sampler.sample(epoch, 0)
        assert torch.equal(given, target)


@pytest.mark.parametrize(("augment", "identities"), [("dihedral", 1), ("published", 0)])
def test_published_crops_are_never_left_as_they_are(picture: Path, augment: str, identities: int) -> None:
    sampler = crops(Item("derain", "set", picture, picture), augment=augment)
    seen = set()
    for epoch in range(100):
        pixels = sampler.sample(epoch, 0)[1].int()
        seen.add((tuple(pixels[:2, 0, 1] - pixels[:2, 0, 0]), tuple(pixels[:2, 1, 0] - pixels[:2, 0, 0])))
    steps = {(tuple(map(int, right)), tuple(map(int, down))) for right, down in seen}
    assert len(steps) == 7 + identities
    assert (((0, 1), (1, 0)) in steps) == bool(identities)


def test_noise_of_a_test_image_depends_on_its_name_and_sigma_alone(picture: Path, tmp_path: Path) -> None:
    elsewhere, renamed = tmp_path / "deep" / "a.png", tmp_path / "b.png"
    elsewhere.parent.mkdir()
    for copy in (elsewhere, renamed):
        copy.write_bytes(picture.read_bytes())
    item = Item("denoise_25", "set", picture)
    given, target = evaluation_pair(item)
    assert np.array_equal(given, noise(target, 25, generator("test", "a.png", "denoise_25", 0)))
    assert np.array_equal(evaluation_pair(replace(item, target=elsewhere))[0], given)
    assert not np.array_equal(evaluation_pair(replace(item, target=renamed))[0], given)
    other = evaluation_pair(replace(item, task="denoise_50"))[0]
    assert np.abs(other.astype(int) - target).mean() > 1.5 * np.abs(given.astype(int) - target).mean()


@pytest.mark.parametrize(("limit", "corner", "shape"), [(None, (0, 0), (96, 80, 3)), (48, (24, 16), (48, 48, 3))])
def test_the_centre_of_both_halves_is_measured(
    picture: Path, limit: int | None, corner: tuple[int, int], shape: tuple[int, ...]
) -> None:
    given, target = evaluation_pair(Item("derain", "set", picture, picture), limit=limit)
    assert given.shape == shape
    assert tuple(target[0, 0, :2]) == corner
    assert np.array_equal(given, target)


def test_a_pair_of_different_sizes_is_refused(picture: Path, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "small.png")
    with pytest.raises(DataError, match=r"small\.png differs in size from its target .*a\.png"):
        evaluation_pair(Item("derain", "set", picture, tmp_path / "small.png"))


def test_noise_falls_on_grey_images_but_weather_is_made_in_colour(picture: Path) -> None:
    item = Item("denoise_25", "set", picture)
    given, target = evaluation_pair(item, in_grey=True)
    assert np.array_equal(target, grey(evaluation_pair(item)[1]))
    assert np.array_equal(given, noise(target, 25, generator("test", "a.png", "denoise_25", 0)))
    for weather in ("derain", "dehaze"):
        made = evaluation_pair(replace(item, task=weather))[0]
        assert np.array_equal(evaluation_pair(replace(item, task=weather), in_grey=True)[0], grey(made))


@pytest.mark.parametrize("task", ["denoise_25", "derain", "dehaze"])
def test_grey_crops_are_those_of_the_colour_crops(picture: Path, task: str) -> None:
    sampler = crops(Item(task, "set", picture))
    given, target = replace(sampler, in_grey=True).sample(0, 0)
    assert given.shape == target.shape == (1, 32, 32) and given.dtype == torch.uint8
    colour = sampler.sample(0, 0)[1]
    assert torch.equal(target, as_tensor(grey(colour.permute(1, 2, 0).numpy())))


def test_tensors_have_channels_first() -> None:
    pixels: Pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    tensor = as_tensor(turn(pixels, 1))
    assert tensor.shape == (3, 4, 2)
    assert tensor.dtype == torch.uint8
    assert tensor[2, 0, 0] == pixels[0, 3, 2]
