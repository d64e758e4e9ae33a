"""The task: options, learning rates, batches, loss, measures and samples; any small network will do."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from prunekit.errors import DataError, RecipeError
from prunekit.task import Task
from prunekit_mir_l.codecs import versions
from prunekit_mir_l.items import Item, Items, evened
from prunekit_mir_l.restoration import MirL, cosine
from prunekit_mir_l.task import mir_l
from prunekit_mir_l.web_v1 import NAMES

FACTS = json.loads((Path(__file__).parent / "fixtures" / "mirl_facts.json").read_text())["lr_schedule"]
TASKS = ["denoise_15", "denoise_25", "denoise_50", "derain", "dehaze"]


def task(**options: Any) -> MirL:
    return mir_l(**{"steps": 20, "batch": 4, "patch": 32, "test_crop": 32} | options)


class Dim(nn.Module):
    """A network of one weight, which multiplies the image."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


@pytest.mark.parametrize(("name", "warmup", "epochs"), [("warmup15_epochs120", 15, 120), ("warmup2_epochs10", 2, 10)])
def test_learning_rates_are_the_published_ones(name: str, warmup: int, epochs: int) -> None:
    published = task(steps=None, epochs=epochs, warmup=warmup, lr_per="epoch", lr=FACTS["base_lr"])
    per_epoch = published.steps // epochs
    assert per_epoch == 54 // 4
    rates = [published.rate * published.lr(clock) for clock in range(published.steps)]
    assert rates[::per_epoch] == pytest.approx(FACTS["per_epoch"][name], rel=1e-12, abs=1e-18)
    assert rates[per_epoch - 1 :: per_epoch] == rates[::per_epoch]


@pytest.mark.parametrize("warmup", [0, 1])
def test_no_warm_up_starts_at_the_base_rate_and_never_reaches_zero(warmup: int) -> None:
    factors = [cosine(t, total=10, warmup=warmup) for t in range(12)]
    assert factors[0] == 1
    assert factors[5] == pytest.approx(0.5)
    assert 0 < factors[9] == factors[10] == factors[11] < factors[8]


def test_per_step_rates_change_with_every_step() -> None:
    built = task(warmup=5)
    assert [built.lr(clock) for clock in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
    assert built.lr(7) < built.lr(6) < 1


def test_it_is_a_task() -> None:
    built: Task = task()
    assert built.steps == 20
    assert isinstance(built.model(), nn.Module)


def test_every_parameter_decays() -> None:
    (group,) = task(lr=1e-3).optimizer(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))).param_groups
    assert (len(group["params"]), group["lr"], group["weight_decay"]) == (4, 1e-3, 0.01)
    assert (group["betas"], group["eps"]) == ((0.9, 0.999), 1e-8)


def test_batches_are_seekable_and_depend_on_the_seed() -> None:
    (given, target), second = itertools.islice(task().batches(0), 2)
    assert given.shape == target.shape == (4, 3, 32, 32)
    assert given.dtype == torch.uint8
    assert torch.equal(next(task().batches(1))[0], second[0])
    assert not torch.equal(next(task(seed=1).batches(0))[0], given)


def test_loss_is_the_mean_absolute_error_of_the_unclamped_output() -> None:
    batch = (torch.full((2, 3, 8, 8), 255, dtype=torch.uint8), torch.full((2, 3, 8, 8), 51, dtype=torch.uint8))
    loss = task().loss(Dim(2.0), batch)
    assert loss.item() == pytest.approx(2.0 - 0.2)
    loss.backward()


def test_measures_of_an_idle_network_are_those_of_the_input() -> None:
    measures = task().evaluate(Dim(1.0))
    assert {m.task for m in measures} == set(TASKS)
    assert len(measures) == 5 * 3 * 4
    assert len({(m.task, m.dataset, m.item, m.metric) for m in measures}) == len(measures)
    assert all(m.value == m.baseline and m.higher_is_better for m in measures)
    published = "RGB, float, clipped to [0, 1], per image; SSIM uniform 7x7; centre of at most 32 px"
    luma = "Y (BT.601, 16 to 235) of RGB in 8 bits, as BasicSR, per image; SSIM Gaussian 11x11; centre of at most 32 px"
    assert {m.metric: m.protocol for m in measures} == {
        **dict.fromkeys(["psnr", "ssim"], published),
        **dict.fromkeys(["psnr_y", "ssim_y"], luma),
    }
    noisy = [m.value for m in measures if (m.task, m.metric) == ("denoise_25", "psnr")]
    assert np.mean(noisy) == pytest.approx(20.5, abs=1)  # 20 log10(255 / 25) = 20.2, and clipping helps


def test_the_metrics_that_are_asked_for_are_measured_in_their_order() -> None:
    measures = task(metrics=["ssim_y", "psnr"]).evaluate(Dim(1.0))
    assert [m.metric for m in measures[:4]] == ["ssim_y", "psnr", "ssim_y", "psnr"]
    usual = {(m.task, m.item): m.value for m in task().evaluate(Dim(1.0)) if m.metric == "psnr"}
    assert {(m.task, m.item): m.value for m in measures if m.metric == "psnr"} == usual


def test_a_worse_network_measures_worse_and_seeds_share_their_test_images() -> None:
    better, worse = task().evaluate(Dim(1.0)), task(seed=7).evaluate(Dim(0.1))
    assert [m.baseline for m in better] == [m.baseline for m in worse]
    assert all(w.value < b.value for b, w in zip(better, worse, strict=True))


def test_ranks_share_the_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, shares = task().evaluate(Dim(0.5)), []
    for rank in range(2):
        monkeypatch.setattr("prunekit.data.rank_and_world", lambda rank=rank: (rank, 2))
        shares.append(task().evaluate(Dim(0.5)))
    assert sorted([*shares[0], *shares[1]], key=repr) == sorted(whole, key=repr)
    assert abs(len(shares[0]) - len(shares[1])) <= 4


def test_samples_are_one_crop_of_each_task() -> None:
    samples = task().samples(Dim(0.5))
    assert [s.task for s in samples] == TASKS
    for sample in samples:
        assert sorted(sample.images) == ["input", "output", "target"]
        assert {(i.shape, i.dtype) for i in sample.images.values()} == {((192, 192, 3), torch.uint8)}
        assert sample.images["output"].float().mean() < sample.images["input"].float().mean() * 0.6


def test_any_measured_item_can_be_pictured() -> None:
    built = task()
    measure = built.evaluate(Dim(0.5))[-1]
    sample = built.picture(Dim(0.5), measure)
    assert (sample.task, sample.item) == (measure.task, measure.item)
    assert sorted(sample.images) == ["input", "output", "target"]


def test_the_example_is_one_network_input() -> None:
    example = task().example()
    assert example.shape == (1, 3, 128, 128)
    assert 0 <= example.min() < example.max() <= 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tasks": ["derian"]}, "task 'derian' is unknown: did you mean 'derain'"),
        ({"augment": "published_"}, "did you mean 'published'"),
        ({"lr_per": "steps"}, "did you mean 'step'"),
        ({"patch": 60}, "patch is 60: it must be a positive multiple of 8"),
        ({"test_crop": 100}, "test_crop is 100: give a positive multiple of 16"),
        ({"epochs": 2}, "give either steps or epochs"),
        ({"steps": None}, "give either steps or epochs"),
        ({"batch": 0}, "must be at least 1"),
        ({"warmup": 20}, "warmup is 20: it must end before training does"),
        ({"sigmas": [25, 0]}, r"sigmas are \[25, 0\]: each must be a whole number above 0"),
        ({"tasks": ["denoise"], "sigmas": []}, "nothing to train on"),
        ({"cache_mib": -1}, "workers, cache_mib and weight_decay must not be negative"),
        ({"metrics": "psnr"}, r"metrics is 'psnr': give a list, such as \[psnr\]"),
        ({"tasks": "denoise"}, r"tasks is 'denoise': give a list"),
        ({"metrics": ["psnr", "psrn_y"]}, "metric 'psrn_y' is unknown: did you mean 'psnr_y'"),
        ({"repeats": "evn"}, "repeats is 'evn': give 'even', or a number for each task"),
        ({"tasks": ["wep"]}, "task 'wep' is unknown: did you mean 'web'"),
        ({"qualities": [10, 0]}, "hold 0: give whole numbers from 1 to 100"),
        ({"train_qualities": [5, 101]}, "hold 101: give whole numbers"),
        ({"train_qualities": [40, 10]}, r"train_qualities are \[40, 10\]: give the lowest and the highest"),
        ({"train_qualities": [40]}, r"train_qualities are \[40\]"),
    ],
)
def test_an_option_without_meaning_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        task(**options)


def test_a_missing_data_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        task(data=str(tmp_path / "nowhere"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        (tmp_path / split / "denoise" / "Mine").mkdir(parents=True)
        Image.new("RGB", (40, 50), (1, 2, 3)).save(tmp_path / split / "denoise" / "Mine" / "a.png")
    return tmp_path


def test_ones_own_images_are_trained_and_tested_on(folder: Path) -> None:
    built = task(data=str(folder), test_crop=None)
    assert next(built.batches(0))[1].float().mean() == 2
    measures = built.evaluate(Dim(1.0))
    assert {(m.task, m.dataset, m.item) for m in measures} == {(name, "Mine", "a.png") for name in TASKS[:3]}
    assert measures[0].protocol == "RGB, float, clipped to [0, 1], per image; SSIM uniform 7x7"


def test_even_repeats_visit_all_tasks_about_equally_often() -> None:
    noise, rain, haze = (Item(task, "D", Path(f"{task}.png")) for task in ("denoise_15", "derain", "dehaze"))
    items = evened(Items([noise] * 6 + [Item("denoise_25", "D", Path("a"))] * 4 + [rain] * 3 + [haze] * 11, [rain]))
    count = Counter(item.task for item in items.train)
    assert count == {"denoise_15": 6, "denoise_25": 4, "derain": 12, "dehaze": 11}
    assert Counter(i.task for i in mir_l(steps=1, repeats="even").crops.items) == dict.fromkeys(TASKS, 6) | {
        "derain": 18,
        "dehaze": 18,
    }


def test_repeats_change_the_balance_of_the_tasks() -> None:
    one, two = mir_l(steps=1), mir_l(steps=1, repeats={"dehaze": 5})
    count = [sum(item.task == "dehaze" for item in task.crops.items) for task in (one, two)]
    assert count == [2 * 6, 5 * 6]
    assert len(two.crops) - len(one.crops) == 3 * 6
    with pytest.raises(RecipeError, match="did you mean 'dehaze'"):
        mir_l(steps=1, repeats={"dehase": 5})


def test_the_fingerprint_changes_with_the_data_only(folder: Path) -> None:
    first = task(data=str(folder)).fingerprint()
    assert task(data=str(folder), seed=5, steps=7).fingerprint() == first
    Image.new("RGB", (400, 500)).save(folder / "train" / "denoise" / "Mine" / "b.png")
    assert task(data=str(folder)).fingerprint() != first
    assert task().fingerprint() == task().fingerprint() != first


@pytest.mark.slow
@pytest.mark.skipif("avif" not in versions(), reason="this Pillow has no AVIF")
def test_files_and_the_web_are_trained_and_tested_on_request_alone() -> None:
    both = task(tasks=["jpeg", "web"], qualities=[10, 80], train_qualities=[30, 60])
    assert {item.task for item in both.crops.items} == {"jpeg_30-60", "web"}
    assert [item.task for item in both.test[::3]] == ["jpeg_10", "jpeg_80", *(f"web_{name}" for name in NAMES)]
    psnr = [m.value for m in both.evaluate(Dim(1.0)) if m.metric == "psnr" and m.task.startswith("jpeg")]
    assert np.mean(psnr[:3]) + 3 < np.mean(psnr[3:])
    assert not any(item.is_file for item in (*task().crops.items, *task().test))


def test_the_web_needs_every_encoder_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunekit_mir_l.codecs._has", lambda codec: codec != "avif")
    assert task(tasks=["jpeg"]).test
    with pytest.raises(RecipeError, match="cannot write AVIF"):
        task(tasks=["web"])


def test_whole_numbers_may_be_written_as_floats() -> None:
    built = task(tasks=["denoise", "jpeg"], sigmas=[15.0], qualities=[10.0], train_qualities=[5.0, 95.0])
    assert {item.task for item in built.test} == {"denoise_15", "jpeg_10"}
    assert {item.task for item in built.crops.items} == {"denoise_15", "jpeg_5-95"}
