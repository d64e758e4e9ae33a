"""Scores: laws over the table, and what each method ranks by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from prunekit.allocate import everywhere
from prunekit.errors import CheckpointError, MaskError
from prunekit.masks import Masks
from prunekit.pruner import prune
from prunekit.registry import BUILT_IN
from prunekit.schedule import Density
from prunekit.score import Scorer, magnitude, random, ticket
from prunekit.testing import check_scorer, example_model


def some_masks(density: float = 0.3) -> Masks:
    return prune(example_model(), Masks.dense(example_model()), density, scorer=random(seed=3))


FACTORIES: dict[str, Callable[[], Scorer]] = {
    "magnitude": magnitude,
    "random": lambda: random(seed=0),
    "ticket": lambda: ticket(some_masks(), shuffle=4),
}


@pytest.mark.parametrize("name", BUILT_IN["scorer"])
def test_laws(name: str) -> None:
    check_scorer(FACTORIES[name])


def test_magnitude_is_computed_when_asked_for() -> None:
    model = nn.Linear(2, 1, bias=False)
    scores = magnitude()(model, None)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-3.0, 2.0]]))
    assert scores["weight"].tolist() == [[3, 2]]
    assert list(scores) == ["weight"] and "bias" not in scores and len(scores) == 1


def test_random_depends_on_seed_and_name_only() -> None:
    small = nn.Sequential(nn.Linear(4, 4))
    large = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).double()
    one, two = random(seed=1)(small, None), random(seed=1)(large, None)
    assert torch.equal(one["0.weight"], two["0.weight"])
    assert not torch.equal(two["0.weight"], two["1.weight"])
    assert not torch.equal(one["0.weight"], random(seed=2)(small, None)["0.weight"])
    state = torch.get_rng_state()
    _ = one["0.weight"]
    assert torch.equal(torch.get_rng_state(), state)


def test_ticket_gives_its_masks_back_at_its_own_density(tmp_path: Path) -> None:
    masks, model = some_masks(), example_model()
    save_file(masks.state_dict(), tmp_path / "cut.safetensors")
    for source in (masks, tmp_path / "cut.safetensors", str(tmp_path / "cut.safetensors")):
        assert prune(model, Masks.dense(model), masks.density, scorer=ticket(source)) == masks


def test_shuffled_ticket_keeps_the_counts_and_moves_the_places() -> None:
    masks, model = some_masks(), example_model()
    one, again, other = (
        prune(model, Masks.dense(model), masks.density, scorer=ticket(masks, shuffle=seed)) for seed in (1, 1, 2)
    )
    assert one == again != other
    assert one != masks and one.per_tensor() == masks.per_tensor() == other.per_tensor()


def test_ticket_of_another_network_and_unreadable_files(tmp_path: Path) -> None:
    dense = Masks.dense(example_model())
    scores = ticket(Masks({"0.weight": torch.ones(1, dtype=torch.bool)}))(example_model(), None)
    with pytest.raises(MaskError, match=r"no mask of shape \(6, 3, 3, 3\) for '0.weight'"):
        everywhere()(scores, dense, Density(0.5))
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors"):
        ticket(tmp_path / "nowhere.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(CheckpointError, match=r"broken\.safetensors"):
        ticket(tmp_path / "broken.safetensors")
    save_file({"weight": torch.ones(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(MaskError, match="not masks"):
        ticket(tmp_path / "weights.safetensors")
