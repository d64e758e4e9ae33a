"""Shapes: cutting a dense network down, and making room for a file that was cut down before."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from prunekit.errors import CheckpointError
from prunekit.shape import Shape, resize_


class Net(nn.Module):
    """Tied layers, a frozen parameter, buffers, and a plain one that is no layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 4, bias=False)
        self.tail = nn.Linear(4, 4, bias=False)
        self.tail.weight = self.head.weight
        self.scale = nn.Parameter(torch.arange(4.0), requires_grad=False)
        self.depth = 3


def indices(*values: int) -> torch.Tensor:
    return torch.tensor(values)


SHAPE = Shape(
    {
        "body.0.weight": {0: indices(1, 3)},
        "body.1.running_mean": {0: indices(1, 3)},
        "head.weight": {0: indices(0, 2, 3), 1: indices(1)},
        "scale": {0: indices(2)},
    },
    {"body.0.out_channels": 2, "body.1.num_features": 2, "head.out_features": 3, "tail.in_features": 1},
)


def test_apply_selects_in_place_under_the_same_names() -> None:
    model = Net()
    before = copy.deepcopy(model.state_dict())
    parameters = dict(model.named_parameters())
    model.head.weight.grad = torch.ones(4, 4)
    SHAPE.apply_(model)
    assert model.state_dict().keys() == before.keys()
    assert dict(model.named_parameters()) == parameters  # the same objects
    assert torch.equal(model.body[0].weight, before["body.0.weight"][[1, 3]])
    assert torch.equal(model.head.weight, before["head.weight"][[0, 2, 3]][:, [1]])
    assert model.body[1].running_mean.shape == (2,) and model.body[1].running_var.shape == (4,)
    assert model.tail.weight is model.head.weight and model.head.weight.grad is None
    assert model.scale.tolist() == [2.0] and not model.scale.requires_grad and model.head.weight.requires_grad
    assert (model.body[0].out_channels, model.body[0].in_channels, model.tail.in_features) == (2, 2, 1)


def test_apply_finds_names_in_wrapped_models() -> None:
    wrapper = nn.Module()
    wrapper.add_module("_orig_mod", Net())
    SHAPE.apply_(wrapper)
    assert wrapper._orig_mod.body[0].out_channels == 2 and wrapper._orig_mod.scale.shape == (1,)


def test_select_takes_masks_and_lets_other_names_through() -> None:
    mask = torch.eye(4, dtype=torch.bool)
    other = torch.ones(2)
    selected = SHAPE.select({"head.weight": mask, "other": other})
    assert selected["head.weight"].tolist() == [[False], [False], [False]] and selected["other"] is other
    assert SHAPE.select({"scale": torch.tensor([0, 0, 7, 0], dtype=torch.int8)})["scale"].tolist() == [7]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (Shape({"sclae": {0: indices(0)}}, {}), "'sclae', which the model lacks; did you mean 'scale'"),
        (Shape({}, {"body.0.out_chanels": 2}), "'body.0.out_chanels', which the model lacks"),
        (Shape({}, {"depth": 2}), "'depth', which the model lacks"),
        (Shape({}, {"scale": 2}), "'scale', which the model lacks"),
        (Shape({"depth": {0: indices(0)}}, {}), "'depth', which the model lacks"),
        (Shape({"scale": {0: indices(1, 4)}}, {}), r"'scale' has shape \(4,\), and index 4 of axis 0 is asked"),
        (Shape({"scale": {1: indices(0)}}, {}), "index 0 of axis 1 is asked"),
    ],
)
def test_apply_refuses_another_network_and_leaves_it(shape: Shape, message: str) -> None:
    model = Net()
    before = copy.deepcopy(model.state_dict())
    both = Shape({"head.weight": {0: indices(1)}, **shape.kept}, {"body.0.out_channels": 1, **shape.attributes})
    with pytest.raises(CheckpointError, match=message):
        both.apply_(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.body[0].out_channels == 4


def test_resize_makes_room_for_what_apply_left() -> None:
    small, fresh = Net(), Net()
    SHAPE.apply_(small)
    identities = [id(parameter) for parameter in fresh.parameters()]
    resize_(fresh, {name: tuple(small.state_dict()[name].shape) for name in SHAPE.kept}, SHAPE.attributes)
    fresh.load_state_dict(small.state_dict())
    assert str(fresh) == str(small) and fresh.tail.weight is fresh.head.weight
    assert [id(parameter) for parameter in fresh.parameters()] == identities
    assert not fresh.scale.requires_grad and fresh.body[1].running_mean.dtype == torch.float32


@pytest.mark.parametrize(
    ("shapes", "attributes", "message"),
    [
        ({"sclae": (2,)}, {}, "'sclae', which the network lacks; did you mean 'scale'"),
        ({"scale": (5,)}, {}, r"'scale' has shape \(5,\) in the file, which is no part of \(4,\)"),
        ({"scale": (2, 2)}, {}, "no part of"),
        ({"scale": (0,)}, {}, "no part of"),
        ({"scale": (-1,)}, {}, "no part of"),
        ({"scale": (True,)}, {}, "no part of"),
        ({"scale": ()}, {}, "no part of"),
        ({"head.weight": (1, 10**12)}, {}, "no part of"),
        ({}, {"depth": 2}, "'depth', which is no size of a layer"),
        ({}, {"training": 1}, "no size of a layer"),
        ({}, {"body.0.forward": 1}, "no size of a layer"),
        ({}, {"body.0.__class__": 1}, "no size of a layer"),
        ({}, {"body.9.out_channels": 1}, "no size of a layer; did you mean 'body.0.out_channels'"),
        ({}, {"body.1.out_channels": 1}, "no size of a layer"),
        ({}, {"body.0.out_channels": 5}, "'body.0.out_channels' to 5: it must be a positive number no larger"),
        ({}, {"body.0.out_channels": 0}, "must be a positive number"),
        ({}, {"body.0.out_channels": True}, "must be a positive number"),
        ({}, {"body.0.out_channels": 2.0}, "must be a positive number"),
        ({}, {"body.0.out_channels": "2"}, "must be a positive number"),
    ],
)
def test_resize_refuses_everything_else_and_changes_nothing(
    shapes: dict[str, tuple[int, ...]], attributes: dict[str, int], message: str
) -> None:
    model = Net()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=message):
        resize_(model, {"body.0.weight": (1, 2, 3, 3), **shapes}, {"head.in_features": 1, **attributes})
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert (model.head.in_features, model.body[0].out_channels, model.depth) == (4, 4, 3)
