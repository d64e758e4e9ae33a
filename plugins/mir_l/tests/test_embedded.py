"""The embedded photographs: there, in colour, split by image, and said to be synthetic."""

from __future__ import annotations

from collections import Counter

import pytest

from prunekit.errors import DataError
from prunekit_mir_l import embedded as module
from prunekit_mir_l.embedded import TEST, TRAIN, embedded
from prunekit_mir_l.images import read_rgb
from prunekit_mir_l.items import SIGMAS, TASKS


def test_every_photograph_is_installed_in_colour_and_large_enough() -> None:
    items = embedded(TASKS, SIGMAS)
    for path in {item.target for item in (*items.train, *items.test)}:
        pixels = read_rgb(path)
        assert min(pixels.shape[:2]) >= 256
        assert (pixels[..., 0] != pixels[..., 2]).any()


def test_no_image_is_on_both_sides_and_the_stereo_pair_is_on_one() -> None:
    assert not set(TRAIN) & set(TEST)
    assert len({"motorcycle" in path for path in TEST}) == 1
    assert sum("motorcycle" in path for path in TRAIN) == 2


def test_the_tasks_are_visited_in_their_balance() -> None:
    items = embedded(TASKS, SIGMAS)
    visits = {task: count / len(TRAIN) for task, count in Counter(item.task for item in items.train).items()}
    assert visits == {"denoise_15": 1, "denoise_25": 1, "denoise_50": 1, "derain": 4, "dehaze": 2}
    assert [item.task for item in items.test] == [task for task in visits for _ in TEST]


def test_one_task_alone() -> None:
    assert {item.task for item in embedded(["dehaze"], SIGMAS).train} == {"dehaze"}


def test_it_is_said_to_be_synthetic() -> None:
    assert all("synthetic" in item.dataset for item in embedded(TASKS, SIGMAS).test)


@pytest.mark.parametrize("photograph", ["skimage/data/unicorn.png", "no_such_package/unicorn.png"])
def test_a_missing_photograph_says_what_to_do(photograph: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TEST", (photograph,))
    with pytest.raises(DataError, match=r"unicorn\.png.*task\.data=DIR"):
        embedded(TASKS, SIGMAS)
