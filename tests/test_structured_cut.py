"""Structured cuts on networks small enough to say which channels go."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunekit.amount import Density, MacDensity, Rate
from prunekit.calibration import Calibration
from prunekit.errors import SelectionError
from prunekit.flow import synflow
from prunekit.gradients import taylor
from prunekit.score import Scorer, magnitude, random
from prunekit.shape import Shape
from prunekit.structured.pruner import Structured
from prunekit.structured.trial import shrunk
from prunekit.tracking import movement

X = torch.ones(1, 2)


def chain(rows: list[list[float]], columns: list[float]) -> nn.Sequential:
    """Return two layers of which each hidden channel has a row in the one and a column in the other."""
    net = nn.Sequential(nn.Linear(2, len(rows), bias=False), nn.Linear(len(rows), 1, bias=False))
    net[0].weight.data = torch.tensor(rows)
    net[1].weight.data = torch.tensor([columns])
    return net


def rising() -> nn.Sequential:
    return chain([[1.0, 1.0], [4.0, 4.0], [2.0, 2.0], [3.0, 3.0]], [1.0, 1.0, 1.0, 1.0])


def cut(net: nn.Module, amount: Any, pruner: Structured | None = None, **data: Any) -> Shape:
    pruner = pruner or Structured(magnitude())
    return pruner.cut(net, pruner.start(net), amount, Calibration([X], **data))


def kept(shape: Shape, name: str = "0.weight") -> list[int]:
    return shape.indices[name][0].tolist()


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        (Density(0.75), [1, 2, 3]),  # 12 weights, 3 in each channel
        (Density(0.7), [1, 3]),  # 8, and three channels are 9
        (Density(0.5), [1, 3]),
        (Density(0.45), [1]),
        (Rate(0.1), [1, 2, 3]),  # at least two weights, so a channel
    ],
)
def test_the_target_is_met_from_below(amount: Any, expected: list[int]) -> None:
    shape = cut(rising(), amount)
    assert kept(shape) == shape.indices["1.weight"][1].tolist() == expected
    assert shape.kept == 3 * len(expected)
    assert shape.attributes == {"0.out_features": len(expected), "1.in_features": len(expected)}


def test_all_of_it_is_the_dense_network() -> None:
    assert cut(rising(), Density(1.0)) == Shape.dense(rising())


def test_multiply_adds_are_met_from_below() -> None:
    assert kept(cut(rising(), MacDensity(0.7, {"0.weight": 8, "1.weight": 4}))) == [1, 3]


@pytest.mark.parametrize(("power", "expected"), [(1, [1]), (2, [0])])
def test_scores_are_summed_up_to_a_power(power: int, expected: list[int]) -> None:
    net = chain([[3.0, 0.0], [2.0, 2.0], [1.0, 1.0]], [1.0, 1.0, 1.0])  # 3, 4, 2 and 9, 8, 2
    assert kept(cut(net, Density(0.34), Structured(magnitude(), power=power))) == expected


def test_every_tensor_of_a_group_has_a_say() -> None:
    net = chain([[3.0, 0.0], [2.0, 2.0], [1.0, 1.0]], [1.0, 1.0, 9.0])  # 3 + 1, 4 + 1, 2 + 9
    assert kept(cut(net, Density(0.34))) == [2]
    assert kept(cut(net, Density(0.67))) == [1, 2]


class Branches(nn.Module):
    """Two groups of four channels; the second one is small, and two of its channels are smaller still."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = rising(), rising()
        self.one[0].weight.data = torch.tensor([[4.0, 5.0], [5.0, 5.0], [5.0, 6.0], [6.0, 6.0]])
        self.other[0].weight.data = torch.tensor([[0.9, 0.9], [0.1, 0.1], [0.8, 0.8], [0.0, 0.0]])
        self.other[1].weight.data *= 0.1

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) + self.other(x)


def test_channels_compete_by_their_share_of_their_groups_mean() -> None:
    shape = cut(Branches(), Density(0.75))
    assert "one.0.weight" not in shape.indices
    assert kept(shape, "other.0.weight") == [0, 2]


def test_scores_below_zero_are_ranked_as_they_are() -> None:
    net = Branches()
    moved = {name: -parameter.detach() for name, parameter in net.named_parameters()}
    shape = cut(net, Density(0.75), Structured(movement()), movement=moved)
    assert "one.0.weight" not in shape.indices
    assert kept(shape, "other.0.weight") == [1, 3]  # the others moved furthest below zero


def test_locally_every_group_loses_the_same_share() -> None:
    shape = cut(Branches(), Density(0.75), Structured(magnitude(), across="local"))
    assert kept(shape, "one.0.weight") == [1, 2, 3]
    assert kept(shape, "other.0.weight") == [0, 1, 2]


def test_a_multiple_of_channels_is_kept() -> None:
    assert kept(cut(rising(), Density(0.8), Structured(magnitude(), multiple=2))) == [1, 3]


def test_heads_lose_their_own_least_channels() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = rising()

        def forward(self, x: Tensor) -> Tensor:
            return self.net[1](self.net[0](x).reshape(-1, 2, self.net[0].out_features // 2).flatten(1))

    assert kept(cut(Heads(), Density(0.5)), "net.0.weight") == [1, 3]
    net = Heads()
    net.net[0].weight.data = torch.tensor([[4.0, 4.0], [3.0, 3.0], [1.0, 1.0], [2.0, 2.0]])
    assert kept(cut(net, Density(0.5)), "net.0.weight") == [0, 3]


def test_an_example_that_does_not_fit_is_not_the_networks_fault() -> None:
    with pytest.raises(SelectionError, match=r"does not take the example .* of shape \[\(1, 5\)\] \(Runtime"):
        Structured(magnitude()).cut(
            rising(), Shape.dense(rising()), Density(0.5), Calibration(example=torch.zeros(1, 5))
        )


class WritesIntoItsInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x *= 1e30  # once more, and it is infinite
        return self.net(x)


def test_a_network_that_writes_into_its_input_leaves_the_example_alone() -> None:
    example, net = torch.ones(1, 2), WritesIntoItsInput()
    dense = MacDensity(0.5, {"net.0.weight": 8, "net.1.weight": 4})
    for amount in (Density(0.7), dense):
        shape = Structured(magnitude()).cut(net, Shape.dense(net), amount, Calibration(example=example))
        assert example.tolist() == [[1, 1]] and len(shape.indices["net.0.weight"][0]) == 2


def test_targets_out_of_reach_say_what_holds_them() -> None:
    expected = "no structured cut leaves 6 parameters or fewer: with every channel gone that can go there are 9. "
    with pytest.raises(SelectionError, match=expected):
        cut(rising(), Density(0.5), Structured(magnitude(), least=3))
    expected = "there are 12. No channel can go of these, the largest: 0.weight, 1.weight. Ask for more, exclude less"
    with pytest.raises(SelectionError, match=expected):
        cut(rising(), Density(0.5), Structured(magnitude(), exclude=("0.weight",)))
    with pytest.raises(SelectionError, match="no structured cut leaves 2 multiply-adds or fewer: .* there are 3"):
        cut(rising(), MacDensity(0.2, {"0.weight": 8, "1.weight": 4}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"across": "all"}, "across must be global or local, not 'all'"),
        ({"multiple": 0}, "multiple must be at least 1, not 0"),
        ({"least": 0}, "least must be at least 1, not 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: Any, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        cut(rising(), Density(0.5), Structured(magnitude(), **options))


def test_a_cut_of_a_cut_lies_within_it() -> None:
    pruner, net, data = Structured(magnitude()), rising(), Calibration([X])
    first = cut(net, Density(0.75))
    smaller = shrunk(net, first)
    second = pruner.cut(smaller, first, Density(0.5), data)
    assert (kept(first), kept(second)) == ([1, 2, 3], [1, 3])
    assert second.density == 0.5  # of the dense network
    second.apply_(smaller, first)
    assert smaller[0].weight.tolist() == [[4.0, 4.0], [3.0, 3.0]]
    assert pruner.cut(smaller, second, Density(0.5), data) == second


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).sum()


SCORERS: list[tuple[Scorer, dict[str, Any], list[int]]] = [
    (taylor(), {"loss": loss}, [0, 2, 3]),
    (synflow(times=3), {}, [0, 2, 3]),
    (
        movement(),
        {"movement": {"0.weight": torch.tensor([[3.0, 3], [2, 2], [0, 0], [1, 1]]), "1.weight": torch.zeros(1, 4)}},
        [0, 1, 3],
    ),
]


@pytest.mark.parametrize(("scorer", "data", "expected"), SCORERS, ids=["taylor", "synflow", "movement"])
def test_scorers_rank_channels(scorer: Scorer, data: dict[str, Any], expected: list[int]) -> None:
    net = rising()
    net[1].weight.data[0, 1] = 0.0  # the largest row, but nothing comes of it
    assert kept(cut(net, Density(0.75), Structured(scorer), **data)) == expected


def test_random_channels_are_those_of_the_seed() -> None:
    net = nn.Sequential(nn.Linear(2, 64), nn.Linear(64, 1))
    cuts = [kept(cut(net, Density(0.5), Structured(random(seed=seed)))) for seed in (0, 0, 1)]
    assert cuts[0] == cuts[1] != cuts[2]
    assert len(cuts[0]) == len(cuts[2]) == 31  # 4 * 31 + 1 of 4 * 64 + 1, the bias of the output


def test_the_model_stays_as_it_is() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 1, 1)).train()
    net[2].eval()
    net[0].weight.requires_grad_(False)
    x = torch.rand(2, 1, 4, 4)
    net(x).sum().backward()
    before = copy.deepcopy(net.state_dict()), [p.grad is None for p in net.parameters()], torch.get_rng_state()
    pruner = Structured(taylor())
    shape = pruner.cut(net, pruner.start(net), Density(0.5), Calibration([x], loss))
    assert shape.density <= 0.5
    assert all(torch.equal(now, old) for now, old in zip(net.state_dict().values(), before[0].values(), strict=True))
    assert [p.grad is None for p in net.parameters()] == before[1] == [True, False, False, False, False, False]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert [module.training for module in net] == [True, True, False, True]
    assert [p.requires_grad for p in net.parameters()] == [False, True, True, True, True, True]
