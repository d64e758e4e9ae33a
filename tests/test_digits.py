"""The task and the recipe of handwritten digits: split, batches, measures, and which networks it takes."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunekit.digits import Digits, digits
from prunekit.errors import PluginError, RecipeError
from prunekit.job import bind_job
from prunekit.recipe import Named, parse_recipe, read_recipe
from prunekit.registry import Registry
from prunekit.task import Task, averages

pytest.importorskip("sklearn")
pytest.importorskip("timm")
REGISTRY = Registry.discover([])


def flat() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))


def task(**options: Any) -> Digits:
    return digits(**{"network": flat, "side": 8, "steps": 60} | options)


def test_every_fourth_image_is_a_test_image() -> None:
    built: Task = task()
    assert isinstance(built, Digits)
    assert built.images_bhw.shape == (1347, 8, 8) and built.test_images_bhw.shape == (450, 8, 8)
    assert built.test_labels[:5].tolist() == [0, 4, 8, 2, 6]
    assert built.labels[:5].tolist() == [1, 2, 3, 5, 6]
    assert built.images_bhw.max() == 16 and built.images_bhw.dtype == torch.uint8
    assert set(built.labels.tolist()) == set(built.test_labels.tolist()) == set(range(10))


def test_batches_are_seekable_and_depend_on_the_seed() -> None:
    (first, labels), (second, _) = itertools.islice(task().batches(0), 2)
    assert first.shape == (32, 8, 8) and labels.shape == (32,)
    assert torch.equal(next(task().batches(1))[0], second)
    assert not torch.equal(next(task(seed=1).batches(0))[0], first)


def test_the_rate_falls_along_a_cosine_and_never_reaches_zero() -> None:
    built = task(steps=100)
    assert (built.lr(0), built.lr(50)) == (1, pytest.approx(0.5))
    assert 0 < built.lr(99) == built.lr(200) < 1e-3


def test_a_linear_network_learns_most_digits() -> None:
    torch.manual_seed(0)
    built = task(steps=150)
    model = built.model()
    optimizer = built.optimizer(model)
    for batch in itertools.islice(built.batches(0), built.steps):
        optimizer.zero_grad()
        built.loss(model, batch).backward()
        optimizer.step()
    with torch.no_grad():
        means = {mean.metric: mean for mean in averages(built.evaluate(model))}
    assert (means["accuracy"].n, means["cross_entropy"].n) == (450, 450)
    assert means["accuracy"].value > 0.85
    assert means["accuracy"].higher_is_better and not means["cross_entropy"].higher_is_better


def test_measures_of_a_network_that_always_says_three() -> None:
    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.margin = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.margin * nn.functional.one_hot(torch.full((len(x),), 3), 10)

    built = task(network=Three)
    measures = built.evaluate(Three())
    right = [m.item for m in measures if m.metric == "accuracy" and m.value == 1]
    assert right == [f"{index:03d}" for index, label in enumerate(built.test_labels.tolist()) if label == 3]
    entropies = {round(m.value, 5) for m in measures if m.metric == "cross_entropy"}
    assert entropies == {0.79661, 2.79661}  # log(e**2 + 9) = 2.79661, less the margin where it is right
    assert built.loss(Three(), (built.images_bhw[:2], torch.tensor([3, 4]))).item() == pytest.approx(1.79661, abs=1e-5)


def test_ranks_share_the_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    model = flat()
    whole, shares = [(m.item, m.metric) for m in task().evaluate(model)], []
    for rank in range(2):
        monkeypatch.setattr("prunekit.data.rank_and_world", lambda rank=rank: (rank, 2))
        shares.append([(m.item, m.metric) for m in task().evaluate(model)])
    assert len(shares[0]) == len(shares[1]) == 450
    assert sorted([*shares[0], *shares[1]]) == sorted(whole)


def test_images_are_enlarged_to_three_equal_channels() -> None:
    example = task(network=lambda: nn.Sequential(nn.AdaptiveAvgPool2d(8), flat()), side=None).example()
    assert example.shape == (1, 3, 32, 32)
    assert torch.equal(example[:, 0], example[:, 1]) and torch.equal(example[:, 0], example[:, 2])
    assert torch.equal(task().example()[0, 1], task().test_images_bhw[0] / 16)


def test_a_network_made_for_one_size_gets_it() -> None:
    class Strict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.default_cfg = {"input_size": (3, 16, 16)}
            self.head = nn.Linear(3 * 16 * 16, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.flatten(1))

    assert task(network=Strict, side=None).side == 16
    with pytest.raises(RecipeError, match="does not take images of 3x20x20 .RuntimeError.*give task.side"):
        task(network=Strict, side=20)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"steps": 0}, r"steps \(0\), batch \(32\) and side \(8\) must be at least 1"),
        ({"lr": 0.0}, r"lr \(0.0\) must be positive"),
        ({"network": lambda: nn.Flatten()}, r"of shape \(2, 10\) .* and gave \(2, 192\): give it ten outputs"),
        ({"network": lambda: nn.Conv2d(1, 10, 3)}, r"does not take images of 3x8x8"),
    ],
)
def test_what_cannot_be_trained_is_refused_when_the_task_is_built(options: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        task(**options)


def test_building_it_leaves_the_random_state() -> None:
    before = torch.get_rng_state()
    task()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_fingerprint_is_that_of_the_images() -> None:
    assert task().fingerprint() == task(seed=5, steps=7).fingerprint() == "ec52fabe89349851"


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(PluginError, match=r'needs scikit-learn and timm: pip install "prunekit\[digits\]"'):
        task()


def test_the_recipe_reaches_ten_percent_in_three_rounds() -> None:
    job = bind_job(read_recipe("digits", [], REGISTRY), REGISTRY)
    assert [stage.name for stage in job.plan] == ["00-1.0000", "01-0.4642", "02-0.2154", "03-0.1000"]
    assert {stage.start.weights for stage in job.plan[1:]} == {50}
    assert job.recipe.task.options["network"]["num_classes"] == 10


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:test_convnext"])
def test_another_network_of_the_recipe_needs_no_options(name: str) -> None:
    job = bind_job(read_recipe("digits", [f"task.network={name}"], REGISTRY), REGISTRY)
    noted = job.recipe.task.options["network"]
    assert (noted["name"], noted["num_classes"]) == (name, 10)
    assert job.model()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


class Fixed(nn.Module):
    """Ten classes, and no option to say so."""

    def __init__(self, *, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 8, stride=8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
        self(torch.zeros(1, 3, 32, 32))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def test_a_network_without_the_option_is_not_given_it() -> None:
    job = bind_job(read_recipe("digits", ["task.network=python:test_digits:Fixed"], REGISTRY), REGISTRY)
    assert job.recipe.task.options["network"] == {"name": "python:test_digits:Fixed", "width": 4}


def test_options_that_are_given_stand() -> None:
    tree = read_recipe("digits", [], REGISTRY).model_dump()
    tree["task"]["network"] = Named.model_validate({"name": "timm:test_vit", "num_classes": 7}).model_dump()
    with pytest.raises(RecipeError, match=r"and gave \(2, 7\)"):
        bind_job(parse_recipe(tree, "mine"), REGISTRY)


@pytest.mark.slow
def test_the_recipe_runs_and_its_ticket_still_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prunekit.cli import main
    from prunekit.files import read_json

    monkeypatch.setattr("sys.argv", ["prunekit", "run", "digits", "--out", str(tmp_path / "run"), "--quiet"])
    with pytest.raises(SystemExit) as done:
        main()
    assert not done.value.code
    last = tmp_path / "run" / "03-0.1000" / "done"
    assert read_json(last / "stage.json")["kept"] == 37157
    page = (tmp_path / "run" / "report" / "report.md").read_text()
    assert "Means over items. Protocol: every fourth image" in page and "| input |" not in page
    hits = [m["value"] for m in read_json(last / "metrics.json") if m["metric"] == "accuracy"]
    assert len(hits) == 450 and sum(hits) / 450 > 0.95
