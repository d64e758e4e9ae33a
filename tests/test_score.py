"""Scores: laws over the table, and what each method ranks by."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from prunekit.allocate import everywhere
from prunekit.amount import Density
from prunekit.calibration import Calibration
from prunekit.errors import CheckpointError, MaskError, SelectionError
from prunekit.gradients import snip
from prunekit.masks import Masks
from prunekit.pruner import prune
from prunekit.score import FromData, PerTensor, lamp, magnitude, random, repeated, ticket
from prunekit.testing import example_data, example_model
from prunekit.tracking import movement


def some_masks(density: float = 0.3) -> Masks:
    return prune(example_model(), Masks.dense(example_model()), density, scorer=random(seed=3))


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
    with pytest.raises(MaskError, match=r"no mask of shape \(8, 4, 3, 3\) for '0.weight'"):
        everywhere()(scores, dense, Density(0.5))
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors"):
        ticket(tmp_path / "nowhere.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(CheckpointError, match=r"broken\.safetensors"):
        ticket(tmp_path / "broken.safetensors")
    save_file({"weight": torch.ones(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(MaskError, match="not masks"):
        ticket(tmp_path / "weights.safetensors")


def one_tensor(*values: float, dtype: torch.dtype = torch.float32) -> nn.Module:
    model = nn.Module()
    model.weight = nn.Parameter(torch.tensor(values, dtype=dtype))
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_lamp_by_hand(dtype: torch.dtype) -> None:
    score = lamp()(one_tensor(-1, 3, 0, 2, -2, dtype=dtype), Calibration())["weight"]
    # Squares 9, then 4 (the first 2), 4, 1, 0: over 9, 13, 17, 18, 18.
    assert score.tolist() == pytest.approx([1 / 18, 1.0, 0.0, 4 / 13, 4 / 17])
    assert lamp()(one_tensor(0, 0), Calibration())["weight"].tolist() == [0.0, 0.0]


def test_lamp_of_what_is_no_number_is_refused() -> None:
    for value in (float("nan"), float("inf")):
        model = one_tensor(1.0, value, 3.0)
        with pytest.raises(SelectionError, match="the score of 'weight' holds NaN"):
            prune(model, Masks.dense(model, include=["weight"]), 0.5, scorer=lamp())


def test_lamp_ranks_within_a_tensor_like_magnitude_and_empties_none() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 20), nn.Linear(20, 3))
    with torch.no_grad():
        model[1].weight.mul_(1e-4)
    dense = Masks.dense(model)
    cut = prune(model, dense, 0.02, scorer=lamp())
    assert cut.kept == round(0.02 * dense.prunable) and not cut.emptied()
    assert prune(model, dense, 0.02).emptied() == ("1.weight",)  # global magnitude does
    for name, mask in cut.items():
        weight = model.get_parameter(name).detach().abs()
        assert weight[mask].min() >= weight[~mask].max()


def test_only_scorers_that_look_at_data_can_be_repeated() -> None:
    with pytest.raises(SelectionError, match="only a scorer that looks at data can be repeated"):
        repeated(magnitude(), times=3)
    model, data = example_model(), example_data()
    dense = Masks.dense(model)
    once, often = (prune(model, dense, 0.1, scorer=each, data=data) for each in (snip(), repeated(snip(), times=9)))
    assert once.kept == often.kept and once != often


def test_what_is_asked_for_twice_is_computed_twice_and_nothing_is_kept() -> None:
    calls = []
    scores = PerTensor(lambda name, weight: calls.append(name) or weight)(nn.Linear(2, 1), None)  # type: ignore[func-returns-value]
    assert len(scores) == 2 and not calls
    _ = scores["weight"], scores["weight"]
    assert calls == ["weight", "weight"]


def test_scores_that_are_wrong_are_refused_by_name() -> None:
    model = example_model()
    dense = Masks.dense(model)
    good = {name: each.detach().abs() for name, each in model.named_parameters()}
    for wrong, message in (
        ({}, "no score for '0.weight'"),
        ({"module.0.weight": good["0.weight"]}, "did you mean 'module.0.weight'"),
        ({**good, "0.weight": good["0.weight"][:1]}, r"'0.weight' is torch.float32 of shape \(1, 4, 3, 3\)"),
        ({**good, "6.weight": good["6.weight"] / 0 * 0}, "the score of '6.weight' holds NaN"),
    ):
        with pytest.raises((SelectionError, MaskError), match=message):
            prune(model, dense, 0.5, scorer=lambda model, data, wrong=wrong: wrong)


def test_scorers_read_as_what_made_them() -> None:
    assert repr(magnitude()) == "PerTensor(magnitude)"
    assert repr(repeated(snip(), times=3)) == "FromData(snip, times=3)"
    assert repr(movement()) == "FromData(movement, tracks=True)"
    assert repr(FromData(len)) == "FromData(len)"
