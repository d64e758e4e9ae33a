"""Chains of the web: sizes kept, grids where they are said to be, and training crops that see them anywhere."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from test_codecs import error, scene

from prunekit.data import batches, generator
from prunekit.errors import RecipeError
from prunekit_mir_l import web, web_v1
from prunekit_mir_l.cache import image_cache
from prunekit_mir_l.codecs import versions
from prunekit_mir_l.dataset import Crops, evaluation_pair
from prunekit_mir_l.degrade import Window
from prunekit_mir_l.images import Pixels, grey, read_rgb
from prunekit_mir_l.items import Item
from prunekit_mir_l.web import Compress, Resize

needs_avif = pytest.mark.skipif("avif" not in versions(), reason="this Pillow has no AVIF")


def jumps_by_phase(pixels: Pixels) -> npt.NDArray[np.float64]:
    """Return how much neighbouring columns differ, by the right one's place modulo 8."""
    jumps = np.abs(np.diff(pixels.astype(float).sum(axis=2), axis=1)).mean(axis=0)
    return np.array([jumps[(at - 1) % 8 :: 8].mean() for at in range(8)])


def blocky_columns(pixels: Pixels) -> list[int]:
    """Return the columns modulo 8 at which blocks begin, of one grid or of several."""
    jumps = jumps_by_phase(pixels)
    return [int(phase) for phase in np.flatnonzero(jumps > 1.4 * np.median(jumps))]


def ramp(side: int = 160) -> Pixels:
    """Paint slow slopes, in which blocks show."""
    row, col = np.indices((side, side))
    slopes = [128 + 60 * np.sin(row / 23 + col / 31 + phase) for phase in (0, 1, 2)]
    noise = np.random.default_rng(1).normal(0, 4, (side, side, 3))
    return np.rint(np.stack(slopes, axis=-1) + noise).clip(0, 255).astype(np.uint8)


def test_one_file_has_blocks_on_its_grid_alone() -> None:
    assert blocky_columns(ramp()) == []
    assert blocky_columns(web.apply([Compress("jpeg", 10)], ramp())) == [0]
    assert blocky_columns(web.apply([Compress("jpeg", 10, shift=(0, 3))], ramp())) == [5]


def test_two_shifted_files_have_blocks_on_two_grids_and_aligned_ones_on_one() -> None:
    first, second = Compress("jpeg", 10), Compress("jpeg", 40)
    assert blocky_columns(web.apply([first, second], ramp())) == [0]
    assert blocky_columns(web.apply([first, replace(second, shift=(4, 4))], ramp())) == [0, 4]


def test_a_shifted_file_is_that_of_the_cropped_picture_inside() -> None:
    pixels = scene()
    shifted = web.apply([Compress("jpeg", 20, "4:4:4", shift=(5, 3))], pixels)
    cropped = web.apply([Compress("jpeg", 20, "4:4:4")], pixels[3:, 5:])  # 8 - 5 rows, 8 - 3 columns
    assert np.array_equal(shifted[3:64, 5:80], cropped[:61, :75])


@pytest.mark.parametrize("shape", [(33, 50, 3), (40, 21, 1), (1, 1, 3)])
def test_a_chain_keeps_the_size_and_the_given_pixels(shape: tuple[int, int, int]) -> None:
    pixels: Pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    before = pixels.copy()
    steps = (Resize(0.37, "lanczos"), Compress("jpeg", 30), Resize(2, "nearest"), Compress("webp", 40), Resize(1))
    made = web.apply(steps, pixels)
    assert (made.shape, made.dtype) == (shape, np.uint8)
    assert np.array_equal(pixels, before)
    assert np.array_equal(web.apply(steps, pixels), made)


def test_a_picture_at_its_own_size_stays_and_a_smaller_one_loses_detail() -> None:
    assert np.array_equal(web.apply([Resize(1, "lanczos")], scene()), scene())
    losses = [error(web.apply([Resize(scale), Resize(1)], scene()), scene()) for scale in (0.9, 0.6, 0.3)]
    assert losses == sorted(losses) and losses[0] > 0.5


def test_a_file_as_large_as_a_jpeg_is_nearer_to_the_original_than_it() -> None:
    jpeg, webp = (web.apply([Compress(codec, 20, as_jpeg=True)], scene()) for codec in ("jpeg", "webp"))
    assert np.array_equal(jpeg, web.apply([Compress("jpeg", 20)], scene()))
    assert error(webp, scene()) < error(jpeg, scene())


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (lambda: Resize(0), "scale is 0: give a share"),
        (lambda: Resize(0.5, "lanzcos"), "did you mean 'lanczos'"),
        (lambda: Compress("jpeg", 10, shift=(0, 16)), r"shift is \(0, 16\): give rows and columns from 0 to 15"),
        (lambda: Compress("jpeg", 101), "quality is 101"),
        (lambda: web.apply([Resize(0.5)], scene()), r"ends at another size.*end it with Resize\(1\)"),
    ],
)
def test_a_step_without_meaning_is_refused(step: object, told: str) -> None:
    assert callable(step)
    with pytest.raises(RecipeError, match=told):
        step()


@needs_avif
def test_drawn_chains_follow_their_key_and_hold_everything() -> None:
    drawn = [web.draw(generator("chain", key)) for key in range(300)]
    assert drawn[:20] == [web.draw(generator("chain", key)) for key in range(20)]
    assert len(set(drawn)) > 290
    files = [step for chain in drawn for step in chain if isinstance(step, Compress)]
    assert {file.codec for file in files} == {"jpeg", "webp", "avif"}
    assert {file.subsampling for file in files} == {"4:2:0", "4:2:2", "4:4:4"}
    shifts = [file.shift for file in files if file.shift != (0, 0)]
    assert {row % 8 for row, _ in shifts} == {col % 8 for _, col in shifts} == set(range(8))
    assert Counter(sum(isinstance(step, Resize) for step in chain) for chain in drawn).keys() == {0, 2, 3}


def test_drawn_jpeg_qualities_fill_their_range() -> None:
    rng = generator("jpeg")
    assert {web.draw_jpeg(rng, 8, 11)[0].quality for _ in range(60)} == {8, 9, 10, 11}


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    Image.fromarray(ramp()).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def crops(*items: Item, patch: int = 32) -> Crops:
    return Crops(items, patch, 0, "dihedral", image_cache(items, 2**20))


@needs_avif
@pytest.mark.parametrize("task", ["web", "jpeg_5-95"])
def test_a_sample_is_a_function_of_seed_epoch_and_index(photograph: Path, task: str) -> None:
    sampler = crops(*[Item(task, "set", photograph)] * 3)
    keys = [(0, 0), (0, 1), (1, 0)]
    once = [sampler.sample(*key) for key in keys]
    again = [sampler.sample(*key) for key in reversed(keys)][::-1]
    assert all(torch.equal(a, b) for one, two in zip(once, again, strict=True) for a, b in zip(one, two, strict=True))
    assert len({given.numpy().tobytes() for given, _ in (*once, replace(sampler, seed=1).sample(0, 0))}) == 4


@needs_avif
def test_samples_do_not_depend_on_workers(photograph: Path) -> None:
    sampler = crops(*[Item("web", "set", photograph)] * 8)
    alone, helped = (list(islice(batches(sampler, size=4, seed=0, clock=0, workers=n), 3)) for n in (0, 2))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(alone, helped, strict=True))


def test_a_crop_is_that_of_the_whole_compressed_picture(photograph: Path) -> None:
    whole = web.apply([Compress("jpeg", 10)], read_rgb(photograph))
    for top, left in [(0, 0), (5, 11), (64, 61), (128, 120)]:
        window = Window(top, left, 32, 32, (160, 160))
        outer = window.around()
        made = web.apply([Compress("jpeg", 10)], outer.cut(read_rgb(photograph)))
        assert np.array_equal(window.inside(outer).cut(made), window.cut(whole))


def test_the_grid_falls_on_training_crops_in_every_way(photograph: Path) -> None:
    sampler = crops(Item("jpeg_8-8", "set", photograph), patch=64)
    samples = [sampler.sample(epoch, 0)[0].permute(1, 2, 0).numpy() for epoch in range(64)]
    phases = Counter(int(jumps_by_phase(sample).argmax()) for sample in samples)
    assert set(phases) == set(range(8))
    assert max(phases.values()) <= 16  # 8 expected of each


def test_a_window_grows_to_the_grid_and_to_the_edge() -> None:
    assert Window(40, 3, 32, 32, (160, 90)).around() == Window(16, 0, 80, 64, (160, 90))
    assert Window(120, 58, 32, 32, (160, 90)).around() == Window(96, 32, 64, 58, (160, 90))


def test_grey_networks_see_grey_jpeg_files_and_the_webs_colours_in_grey(photograph: Path) -> None:
    given, target = evaluation_pair(Item("jpeg_10", "set", photograph), in_grey=True)
    assert np.array_equal(target, grey(ramp()))
    assert np.array_equal(given, web.apply([Compress("jpeg", 10)], target))
    item = Item("web_jpeg-30-444", "set", photograph)
    assert np.array_equal(evaluation_pair(item, in_grey=True)[0], grey(evaluation_pair(item)[0]))


def test_test_images_are_made_of_whole_photographs_and_keep_their_name(photograph: Path) -> None:
    item = Item("web_twice-shifted", "set", photograph)
    given, target = evaluation_pair(item, limit=48)
    whole = web.apply(web_v1.chain("twice-shifted", "a"), ramp())
    assert np.array_equal(given, whole[56:104, 56:104])
    assert np.array_equal(target, ramp()[56:104, 56:104])
