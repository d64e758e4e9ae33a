"""The recipes that come with the plugin: complete, and the paper's as published."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from torch import nn

from prunekit.errors import SelectionError
from prunekit.network import bind_network
from prunekit.select import prunable
from prunekit_mir_l.task import mir_l


def recipe(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((resources.files("prunekit_mir_l.recipes") / f"{name}.yaml").read_text()))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Make the smallest folder that holds all three tasks."""
    for split in ("train", "test"):
        for place in ("denoise/A/a", "derain/B/input/b", "derain/B/target/b", "dehaze/C/input/c", "dehaze/C/target/c"):
            path = tmp_path / split / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64)).save(path)
    return tmp_path


def test_the_default_trains_all_three_tasks_on_embedded_photographs() -> None:
    task = recipe("mir_l")["task"]
    assert task.pop("name") == "mir_l"
    assert task["data"] == "embedded"
    assert {item.task.split("_")[0] for item in mir_l(**task).test} == {"denoise", "derain", "dehaze"}


def test_whole_recipe_fits_networks_without_prompts_and_cuts_the_same_of_promptir() -> None:
    prune = recipe("mir_l")["prune"]
    assert prune["include"] == ["*{weight,prompt_param}"]
    model = bind_network("promptir_tiny")()
    assert prunable(model, include=prune["include"]) == prunable(model, include=["*weight", "*prompt_param"])
    other = bind_network({"name": "spandrel:DnCNN", "nc": 4, "nb": 3})()
    assert prunable(other, include=prune["include"]) == (
        "model.0.weight",
        "model.2.weight",
        "model.3.weight",
        "model.5.weight",
    )
    with pytest.raises(SelectionError, match="include: '.*' matches no name"):
        prunable(nn.PReLU(), include=["*{prompt_param,scale}"])


def test_structured_trains_the_same_as_whole_and_less_of_it() -> None:
    whole, structured = recipe("mir_l"), recipe("mir_l_structured")
    assert structured["task"] == whole["task"]
    assert structured["prune"]["name"] == "structured"
    assert structured["strategy"] == {
        **{"name": "iterative", "rounds": 3, "schedule": {"name": "geometric", "density": 0.5}},
        **{"of": "macs", "rewind": "init"},
    }
    assert structured["strategy"]["rounds"] < whole["strategy"]["rounds"]


def test_web_is_the_whole_with_two_tasks_and_says_that_it_is_beyond_the_paper() -> None:
    whole, web = recipe("mir_l"), recipe("mir_l_web")
    added = {"tasks": ["denoise", "derain", "dehaze", "jpeg", "web"], "qualities": [10, 40], "steps": 4000}
    assert web["task"] == whole["task"] | added
    assert web["strategy"] == whole["strategy"] | {"rounds": 3}
    assert (web["prune"], web["seed"], web["precision"]) == (whole["prune"], whole["seed"], whole["precision"])
    assert web["description"].startswith("Beyond the paper")


def test_the_papers_task_is_the_published_one(pairs: Path) -> None:
    task = recipe("mir_l_paper")["task"]
    assert task.pop("name") == "mir_l"
    built = mir_l(**(task | {"data": str(pairs)}))
    per_epoch = (3 * 3 + 120 + 1) // 8
    assert built.steps == 120 * per_epoch
    assert [built.lr(epoch * per_epoch) for epoch in (0, 14, 15)] == [0, 1, 1]
    assert built.rate == 2e-4
    assert (built.batch, built.crops.patch, built.crops.augment, built.test_crop) == (8, 64, "published", None)


def test_the_papers_pruning_is_the_published_one() -> None:
    read = recipe("mir_l_paper")
    assert read["prune"]["include"] == ["*weight*"]
    strategy = read["strategy"]
    assert (strategy["rounds"], strategy["schedule"]) == (15, {"name": "rate", "rate": 0.2})
    assert (strategy["rewind"], strategy["keep"]) == ("init", ["*prompt_param", "*temperature"])


def test_the_small_one_wants_real_data_and_fits_it(pairs: Path) -> None:
    task = recipe("mir_l_small")["task"]
    assert task.pop("name") == "mir_l"
    built = mir_l(**task | {"data": str(pairs)})
    assert (built.steps, len(built.crops.items), {item.task.split("_")[0] for item in built.crops.items}) == (
        8000,
        9,
        {"denoise", "derain", "dehaze"},
    )
