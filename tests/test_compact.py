"""Compaction of chains: unread channels, zeros and constants; which of them go is known by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from compacting import Net, X, checked, kept, shapes, zero_
from torch import nn

import prunekit as pk
from prunekit.sparse.compact import compact


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_a_channel_that_nothing_reads_goes_with_everything_that_belongs_to_it() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.PReLU(4), nn.Conv2d(4, 2, 3, padding=1))
    zero_(model, "3.weight", slice(None), 1)
    small = checked(model)
    assert kept(small, "0.weight") == [0, 2, 3] and small.removed == 1 and not small.biases
    assert shapes(small) == {
        "0.weight": (3, 3, 3, 3),
        "0.bias": (3,),
        "1.weight": (3,),
        "1.bias": (3,),
        "1.running_mean": (3,),
        "1.running_var": (3,),
        "2.weight": (3,),
        "3.weight": (2, 3, 3, 3),
    }
    assert small.shape.attributes == {
        "0.out_channels": 3,
        "1.num_features": 3,
        "2.num_parameters": 3,
        "3.in_channels": 3,
    }
    assert small.model[0].out_channels == small.model[3].in_channels == 3
    assert isinstance(small.model, nn.Sequential) and not small.model.training


def chain(last: nn.Module, *, bias: float) -> nn.Sequential:
    """Return conv, batch norm, relu and ``last``, where channel 1 is a constant, relu(bias)."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), last)
    zero_(model, "0.weight", 1)
    with torch.no_grad():
        model[1].running_var.fill_(4.0)
        model[0].bias[1], model[1].bias[1], model[1].weight[1] = 6.0, bias - 3.0, 1.0
    return model


def test_a_constant_is_folded_into_the_bias_of_what_reads_it() -> None:
    model = chain(nn.Conv2d(4, 2, 1), bias=5.0)
    before = model[3].bias.detach().clone()
    small = checked(model)
    assert kept(small, "0.weight") == [0, 2, 3] and list(small.biases) == ["3.bias"]
    constant = 6.0 / (4 + 1e-5) ** 0.5 + 2.0
    torch.testing.assert_close(small.biases["3.bias"], before + constant * model[3].weight[:, 1, 0, 0].detach())
    assert torch.equal(small.model[3].bias, small.biases["3.bias"]) and torch.equal(model[3].bias, before)


@pytest.mark.slow
def test_which_constants_can_go() -> None:
    cases = [
        (nn.Conv2d(4, 2, 3, padding=1), 5.0, 0),  # at the border, the constant stands beside padded zeros
        (nn.Conv2d(4, 2, 3, padding="same"), 5.0, 0),
        (nn.Conv2d(4, 2, 3, padding=1), -5.0, 1),  # relu makes it 0, which padding is too
        (nn.Conv2d(4, 2, 3), 5.0, 1),
        (nn.Conv2d(4, 2, 3, padding="valid", stride=2), 5.0, 1),
        (nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect"), 5.0, 1),
        (nn.Conv2d(4, 2, 1, bias=False), 5.0, 0),  # nothing could take it up
        (nn.Conv2d(4, 2, 1, bias=False), -5.0, 1),
        (nn.ConvTranspose2d(4, 2, 3), 5.0, 0),  # its outputs see different numbers of taps
        (nn.ConvTranspose2d(4, 2, 3), -5.0, 1),
        (nn.Sequential(nn.AvgPool2d(2, padding=1), nn.Conv2d(4, 2, 1)), 5.0, 0),
        (nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(4, 2, 1)), 5.0, 1),
        (nn.Sequential(nn.MaxPool2d(3, padding=1), nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 1)), 5.0, 1),
        (nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(4, 2, 1)), 5.0, 0),
        (nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), nn.Conv2d(4, 2, 1)), 5.0, 0),
        (nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), nn.Conv2d(4, 2, 1)), -5.0, 1),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.Conv2d(4, 2, 1)), 5.0, 1),
        (Net(lambda net, x: net.out(x.sum((2, 3), keepdim=True)), out=nn.Conv2d(4, 2, 1)), 5.0, 0),
        (Net(lambda net, x: net.out(x.sum((2, 3), keepdim=True)), out=nn.Conv2d(4, 2, 1)), -5.0, 1),
        (Net(lambda net, x: net.out(x.mean((2, 3), keepdim=True)), out=nn.Conv2d(4, 2, 1)), 5.0, 1),
        (nn.Sequential(nn.ConstantPad2d(1, 1.0), nn.Conv2d(4, 2, 1)), -5.0, 0),
    ]
    model = Net(
        lambda net, x: [branch(x) for branch in net.branches],
        branches=nn.ModuleList(chain(last, bias=bias) for last, bias, _ in cases),
    )
    small = checked(model)
    for place, (last, bias, removed) in enumerate(cases):
        assert (f"branches.{place}.0.weight" in small.shape.indices) == bool(removed), (last, bias)
        reader = next(
            n
            for n, m in reversed(list(model.named_modules()))
            if f"branches.{place}." in n and isinstance(m, nn.modules.conv._ConvNd)
        )
        assert (f"{reader}.bias" in small.biases) == bool(removed and bias > 0), (last, bias)


def test_a_batch_norm_of_scale_zero_makes_constants() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    zero_(model, "1.weight", 2)
    with torch.no_grad():
        model[1].bias[2] = 7.0
    small = checked(model)
    assert kept(small, "0.weight") == [0, 1, 3] and list(small.biases) == ["2.bias"]


def test_a_bias_that_others_read_or_a_mask_cuts_takes_nothing_up() -> None:
    model = chain(nn.Conv2d(4, 4, 1), bias=5.0)
    shared = Net(lambda net, x: net.chain(x) + net.chain[3].bias.view(1, -1, 1, 1), chain=copy.deepcopy(model))
    assert checked(shared).removed == 0
    masks = pk.Masks({"3.bias": torch.tensor([False, True, True, True])})
    assert checked(model, masks=masks).removed == 0
    assert checked(model).removed == 1


def test_masks_are_applied_and_come_back_in_the_new_shape() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    masks = pk.Masks({name: mask.clone() for name, mask in pk.Masks.dense(model).items()})
    masks["2.weight"][:, 2] = False
    masks["0.weight"][3, 1] = False
    small = checked(model, torch.rand(5, 3), masks)
    assert small.masks.per_tensor() == {"0.weight": (8, 9), "2.weight": (6, 6)}
    assert small.model[0].weight[2, 1] == 0 and model[0].weight.count_nonzero() == 12
    assert small.shape.attributes == {"0.out_features": 3, "2.in_features": 3}


def test_death_spreads_backwards_through_layers_and_forwards_through_zeros() -> None:
    model = nn.Sequential(*(nn.Linear(6, 6, bias=False) for _ in range(5)))
    zero_(model, "3.weight", slice(None), slice(2, None))  # only 0 and 1 of layer 2 are read
    zero_(model, "2.weight", slice(0, 2), slice(1, 5))  # and they read only 0 and 5 of layer 1
    zero_(model, "0.weight", 3)
    zero_(model, "1.weight", 5, [0, 1, 2, 4, 5])  # whose 5 reads only the zero 3 of layer 0, and so is 0
    small = checked(model, torch.rand(2, 6))
    assert [tuple(layer.weight.shape) for layer in small.model] == [(5, 6), (1, 5), (2, 1), (6, 2), (6, 6)]


def test_one_channel_stays_where_all_are_dead() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.ReLU(), nn.Conv2d(5, 2, 1))
    zero_(model, "4.weight")
    small = checked(model)
    assert [tuple(small.model[i].weight.shape[:2]) for i in (0, 2, 4)] == [(1, 3), (1, 1), (2, 1)]


def test_the_model_stays_as_it_was() -> None:
    model = chain(nn.Conv2d(4, 2, 1), bias=5.0).train()
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    masks = pk.prune(model, pk.Masks.dense(model), 0.5)
    compact(model, X, masks)
    assert [module.training for module in model] == [True, False, True, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model[0].out_channels == 4
