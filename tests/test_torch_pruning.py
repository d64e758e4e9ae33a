"""torch-pruning as a second finder: what it finds, what stays, and how it fails."""

from __future__ import annotations

import inspect

import pytest
import torch
from channel_nets import Gate, Joined, Scaled, Tied, groups
from finding import find
from torch import Tensor, nn

from prunekit.budget import budget
from prunekit.errors import BudgetError, CheckpointError, SelectionError
from prunekit.structured.declare import Channels
from prunekit.structured.torch_pruning import find_by_torch_pruning


def test_what_layers_hold_along_a_channel() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ConvTranspose2d(2, 2, 1), nn.Conv2d(2, 1, 1))
    assert groups(find_by_torch_pruning(model, torch.zeros(1, 1, 4, 4))) == {
        ("0.bias", 0): [1, 2],
        ("0.weight", 0): [1, 2],
        ("1.bias", 0): [1, 2],
        ("1.running_mean", 0): [1, 2],
        ("1.running_var", 0): [1, 2],
        ("1.weight", 0): [1, 2],
        ("2.bias", 0): [3, 4],
        ("2.weight", 0): [1, 2],
        ("2.weight", 1): [3, 4],
        ("3.weight", 1): [3, 4],
    }


def test_channels_that_meet_go_together() -> None:
    found = groups(find_by_torch_pruning(Gate(), torch.zeros(1, 3, 4, 4)))
    assert found == {("narrow.weight", 1): [1, 2], ("wide.bias", 0): [1, 2, 1, 2], ("wide.weight", 0): [1, 2, 1, 2]}


def test_a_norm_says_what_it_counts_and_mixes() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 1))
    found = find_by_torch_pruning(model, torch.zeros(1, 3))
    assert found.sizes["1.normalized_shape"].tolist() == found.mixed.tolist() == [1, 2]


def test_channels_beside_the_input_are_told_from_it() -> None:
    model, example = Joined("beside"), torch.zeros(1, 3, 4, 4)
    found = groups(find_by_torch_pruning(model, example))
    assert found == {
        ("after.weight", 1): [0, 0, 0, 1, 2, 3],
        ("before.bias", 0): [1, 2, 3],
        ("before.weight", 0): [1, 2, 3],
    }
    assert groups(find(model, example)) == found


@pytest.mark.parametrize(
    "model",
    [
        Joined("added"),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 1, 1)),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.Conv2d(4, 1, 1)),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm((4, 4, 4)), nn.Conv2d(4, 1, 1)),
    ],
    ids=["added to the input", "grouped", "group norm", "norm of a whole map"],
)
def test_what_it_cannot_know_stays(model: nn.Module) -> None:
    assert groups(find_by_torch_pruning(model, torch.zeros(1, 3, 4, 4))) == {}


def test_a_weight_of_two_layers_stays() -> None:
    assert groups(find_by_torch_pruning(Tied(), torch.zeros(1, 3))) == {}


def test_what_is_excluded_stays() -> None:
    model, example = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2), nn.Linear(2, 1)), torch.zeros(1, 3)
    found = groups(find_by_torch_pruning(model, example, exclude=("1.bias",)))
    assert set(found) == {("0.bias", 0), ("0.weight", 0), ("1.weight", 1)}
    with pytest.raises(SelectionError, match=r"exclude: '3\.\*' matches no name"):
        find_by_torch_pruning(model, example, exclude=("3.*",))


def test_what_a_class_declares_holds_here_too() -> None:
    declared = {Gate: Channels(keep=("narrow.weight",))}
    assert groups(find_by_torch_pruning(Gate(), torch.zeros(1, 3, 4, 4), declared=declared)) == {}


def test_two_searches_in_one_process_know_nothing_of_each_other() -> None:
    import torch_pruning
    from torch_pruning.pruner.function import PrunerBox

    model, example, other = (
        Scaled(),
        torch.zeros(1, 3, 4, 4),
        nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 1)),
    )
    state = [dict(vars(each)) for each in PrunerBox.values()]
    keys = set(model.state_dict())
    alone = groups(find_by_torch_pruning(model, example))
    find_by_torch_pruning(other, torch.zeros(1, 3))
    assert groups(find_by_torch_pruning(model, example)) == alone
    assert [dict(vars(each)) for each in PrunerBox.values()] == state
    defaults = inspect.signature(torch_pruning.pruner.BasePruner.__init__).parameters.values()
    assert not any(each.default for each in defaults if isinstance(each.default, dict))
    assert set(model.state_dict()) == keys
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Unending(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while True:
            x = x + 1


def test_one_that_does_not_end_is_stopped_and_the_module_named() -> None:
    model = nn.Sequential(nn.Linear(3, 2), Unending())
    with (
        pytest.raises(BudgetError, match=r"finding took more than 0\.2 s .* at '1'"),
        budget(seconds=0.2, model=model, what="finding") as limit,
    ):
        find_by_torch_pruning(model, torch.zeros(1, 3), limit=limit)


def test_a_network_that_fails_is_named_and_why() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(4, 1))
    with pytest.raises(CheckpointError, match=r"cannot follow this network \(RuntimeError: mat1"):
        find_by_torch_pruning(model, torch.zeros(1, 3))
