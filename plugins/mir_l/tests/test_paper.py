"""The published recipe, bound to a small data folder: counts, masks and rewinds as published."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from prunekit.amount import Density, Rate
from prunekit.job import Job, bind_job, expected
from prunekit.masks import Masks
from prunekit.plan import Rewind
from prunekit.recipe import read_recipe
from prunekit.registry import Registry

pytestmark = pytest.mark.slow  # fifteen cuts of the network at full size


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Job:
    root = tmp_path_factory.mktemp("data")
    for split in ("train", "test"):
        for folder, names in (
            ("denoise/BSD400", ("a.png",)),
            ("derain/Rain100L/input", ("x_rainy.png",)),
            ("derain/Rain100L/target", ("x_gt.png",)),
            ("dehaze/OTS/input", ("y_hazy.png",)),
            ("dehaze/OTS/target", ("y_gt.png",)),
        ):
            (root / split / folder).mkdir(parents=True)
            for name in names:
                Image.fromarray(np.zeros((80, 96, 3), np.uint8)).save(root / split / folder / name)
    registry = Registry.discover()
    return bind_job(read_recipe("mir_l_paper", [f"task.data={root}"], registry), registry)


def test_fifteen_rounds_leave_the_published_share(paper: Job) -> None:
    model = paper.model()
    dense: Masks = paper.pruner.start(model)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert (dense.prunable, total) == (33_199_064, 35_592_263)
    kept = [round(density * dense.prunable) for _, density in expected(paper.plan, paper.kept, dense.prunable)]
    shares = {k: round(100 * (total - dense.prunable + kept[k]) / total, 2) for k in (5, 8, 10, 12, 15)}
    assert shares == {5: 37.29, 8: 22.37, 10: 16.74, 12: 13.13, 15: 10.01}
    assert total - dense.prunable + kept[15] == 3_561_286


def test_prompts_and_temperatures_keep_their_trained_values(paper: Job) -> None:
    assert len(paper.plan) == 16
    for stage in paper.plan[1:]:
        assert stage.start == Rewind(0, 0, ("*prompt_param", "*temperature"))
        assert stage.end == paper.task.steps
    assert all(amount == Rate(0.2) for stage in paper.plan for _, amount in stage.prune_at)


def test_cutting_by_initial_magnitude_alone_would_empty_tensors(paper: Job) -> None:
    model = paper.model()
    masks = paper.pruner.cut(model, paper.pruner.start(model), Density(0.0352), None)
    # A fact about the published allocation (no floor): ranking by the initial values alone empties about 90 of 401.
    assert len(masks) == 401
    assert 80 <= len(masks.emptied()) <= 100
    assert {f"prompt{k}.conv3x3.weight" for k in (1, 2, 3)} <= set(masks.emptied())


def test_prompts_lie_in_the_unit_interval_and_the_seed_decides(paper: Job) -> None:
    one, two = paper.model().state_dict(), paper.model().state_dict()
    assert torch.equal(one["prompt1.prompt_param"], two["prompt1.prompt_param"])
    assert one["prompt1.prompt_param"].min() >= 0
    assert one["prompt1.prompt_param"].max() < 1
