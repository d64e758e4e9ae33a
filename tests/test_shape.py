"""Shapes: cutting a dense network down, and making room for a file that was cut down before."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from prunekit.errors import CheckpointError
from prunekit.shape import Shape
from prunekit.sizes import resize_


class Net(nn.Module):
    """Tied layers, a frozen parameter, buffers, and a plain one that is no layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 4, bias=False)
        self.tail = nn.Linear(4, 4, bias=False)
        self.tail.weight = self.head.weight
        self.scale = nn.Parameter(torch.arange(4.0), requires_grad=False)
        self.depth = 3.0


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
    both = Shape({"head.weight": {0: indices(1)}, **shape.indices}, {"body.0.out_channels": 1, **shape.attributes})
    with pytest.raises(CheckpointError, match=message):
        both.apply_(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.body[0].out_channels == 4


def test_resize_makes_room_for_what_apply_left() -> None:
    small, fresh = Net(), Net()
    SHAPE.apply_(small)
    identities = [id(parameter) for parameter in fresh.parameters()]
    resize_(fresh, {name: tuple(small.state_dict()[name].shape) for name in SHAPE.indices}, SHAPE.attributes)
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


def line() -> nn.Module:
    """5 -> 4 numbers, normalised."""
    return nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4))


FIRST = Shape(
    {
        "0.weight": {0: indices(0, 1, 3)},
        "0.bias": {0: indices(0, 1, 3)},
        **{f"1.{name}": {0: indices(0, 1, 3)} for name in ("weight", "bias")},
    },
    {"0.out_features": 3, "1.normalized_shape": 3},
    Shape.dense(line()).sizes,
)
FOUND_LATER = Shape(
    {
        "0.weight": {0: indices(0, 2), 1: indices(1, 4)},
        **{name: {0: indices(0, 2)} for name in ("0.bias", "1.weight", "1.bias")},
    },
    {"0.out_features": 2, "0.in_features": 2, "1.normalized_shape": 2},
)


def test_counts_have_all_parameters_of_the_dense_network_below_them() -> None:
    assert (FIRST.kept, FIRST.prunable) == (15 + 3 + 3 + 3, 20 + 4 + 4 + 4) and FIRST.density == 24 / 32
    assert FIRST.per_tensor() == {"0.weight": (15, 20), "0.bias": (3, 4), "1.weight": (3, 4), "1.bias": (3, 4)}
    whole = Shape.dense(line())
    assert whole.density == 1 and str(whole) == "Shape(32 of 32 kept, 0 tensors smaller)"


def test_a_shape_found_on_a_smaller_network_is_one_of_the_dense_network() -> None:
    both = FIRST.then(FOUND_LATER)
    assert both.indices["0.weight"][0].tolist() == [0, 3] and both.indices["0.weight"][1].tolist() == [1, 4]
    assert both.attributes == {"0.out_features": 2, "0.in_features": 2, "1.normalized_shape": 2}
    straight, by_steps = line(), line()
    by_steps.load_state_dict(straight.state_dict())
    both.apply_(straight)
    FIRST.apply_(by_steps)
    selected = both.select(by_steps.state_dict(), since=FIRST)
    both.apply_(by_steps, since=FIRST)
    for name, tensor in straight.state_dict().items():
        assert torch.equal(by_steps.state_dict()[name], tensor) and torch.equal(selected[name], tensor)
    assert by_steps[1].normalized_shape == (2,) and by_steps(torch.rand(3, 2)).shape == (3, 2)
    both.apply_(by_steps, since=both)
    assert by_steps[0].weight.shape == (2, 2)


def test_a_shape_never_grows() -> None:
    model = line()
    FIRST.apply_(model)
    with pytest.raises(CheckpointError, match=r"axis 0 of .* would get back channels"):
        Shape({"0.weight": {0: indices(0, 2)}}, {}).apply_(model, since=FIRST)
    with pytest.raises(CheckpointError, match="would get back"):
        Shape.dense(line()).apply_(model, since=FIRST)
    assert model[0].weight.shape == (3, 5)


def test_a_shape_is_of_one_network_and_applied_once() -> None:
    wider = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6))
    with pytest.raises(CheckpointError, match=r"has shape \(6.*\) and not \(4.*\): the shape belongs to another"):
        FIRST.apply_(wider)
    model = line()
    FIRST.apply_(model)
    with pytest.raises(CheckpointError, match="or is applied for the second time"):
        FIRST.apply_(model)
    assert wider[0].weight.shape == (6, 5) and model[0].weight.shape == (3, 5)


def test_saving_keeps_everything_and_the_order() -> None:
    again = Shape.load(dict(sorted(FIRST.state_dict().items())))
    assert again == FIRST and again.digest() == FIRST.digest() and hash(again) == hash(FIRST)
    assert list(again.sizes) == list(FIRST.sizes) and again.attributes == FIRST.attributes
    assert again.indices["1.bias"][0].tolist() == [0, 1, 3]
    assert again != FOUND_LATER and again != Shape.dense(line()) and again != 3
    with pytest.raises(CheckpointError, match=r"'bits/0.weight' is no part of a structured cut"):
        Shape.load({"bits/0.weight": torch.zeros(1)})
