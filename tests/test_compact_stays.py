"""Compaction leaves alone what it does not understand, respects sizes in the code, and refuses what it cannot prove."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compacting import NONE, Net, X, checked, kept, zero_
from torch import Tensor, nn

from prunekit.errors import CheckpointError
from prunekit.sparse.compact import compact


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def attention(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.qkv(x).flatten(2).chunk(3, dim=1)
    out: Tensor = net.out((torch.softmax(q @ k.transpose(1, 2), dim=-1) @ v).unflatten(2, (8, 8)))
    return out


class Branch(Net):
    """A convolution with a channel of zeros, something in the middle, and a convolution."""

    def __init__(self, middle: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__(
            lambda net, x: net.out(middle(net, net.into(x))),
            into=nn.Conv2d(3, 4, 1),
            out=nn.Conv2d(4, 2, 1),
            grouped=nn.Parameter(torch.rand(4, 2, 1, 1)),
            mix=nn.Parameter(torch.rand(4, 1, 1)),
            square=nn.Parameter(torch.rand(4, 4)),
            across=nn.Linear(8, 8),
            widen=nn.Conv2d(1, 4, 1),
        )
        zero_(self, "into.weight", 1)
        zero_(self, "into.bias", 1)


@pytest.mark.slow
def test_operators_that_mix_channels_keep_them_all() -> None:
    middles: list[Callable[[Any, Tensor], Tensor]] = [
        lambda net, x: F.layer_norm(x.movedim(1, -1), (4,)).movedim(-1, 1),
        lambda net, x: F.group_norm(x, 2),
        lambda net, x: torch.softmax(x, dim=1),
        lambda net, x: x / x.norm(dim=1, keepdim=True),
        lambda net, x: x - x.mean(1, keepdim=True),
        lambda net, x: x.unflatten(1, (2, 2)).amax(2).repeat_interleave(2, 1),
        lambda net, x: x + x.flip(1),
        lambda net, x: F.conv2d(x, net.grouped, groups=2),
        lambda net, x: x * (x.sum((2, 3), keepdim=True) * net.mix).sum(1, keepdim=True),
        lambda net, x: torch.einsum("bchw,cd->bdhw", x, net.square),
        lambda net, x: F.conv2d(x, (net.square / net.square.norm())[..., None, None]),
        lambda net, x: net.across(x),
        lambda net, x: net.widen(x.mean(1, keepdim=True)),
        lambda net, x: F.batch_norm(x, None, None, training=True),
    ]
    model = Net(
        lambda net, x: [branch(x) for branch in net.branches], branches=nn.ModuleList(Branch(m) for m in middles)
    )
    small = checked(model)
    assert small.removed == 0 and small.shape.indices == {} and small.shape.attributes == {}
    assert checked(Branch(lambda net, x: F.celu(x))).removed == 1


def test_attention_keeps_its_channels_but_what_feeds_it_may_shrink() -> None:
    model = Net(
        lambda net, x: attention(net, F.relu(net.into(x))),
        into=nn.Conv2d(3, 5, 1),
        qkv=nn.Conv2d(5, 12, 1, bias=False),
        out=nn.Conv2d(4, 2, 1),
    )
    zero_(model, "qkv.weight", [0, 5, 9])  # a zero query or key still takes part in the softmax
    zero_(model, "out.weight", slice(None), 1)
    zero_(model, "qkv.weight", slice(None), 2)
    small = checked(model)
    assert kept(small, "into.weight") == [0, 1, 3, 4] and list(small.shape.indices["qkv.weight"]) == [1]


def test_a_write_through_a_view_is_seen() -> None:
    def code(net: Any, x: Tensor) -> Tensor:
        y = net.into(x)
        y[:, :1].add_(1.0)
        out: Tensor = net.out(y)
        return out

    model = Net(code, into=nn.Conv2d(3, 3, 1, bias=False), out=nn.Conv2d(3, 2, 1, bias=False))
    zero_(model, "into.weight", 0)  # channel 0 is not 0 but 1
    assert checked(model).removed == 0


def test_a_parameter_read_in_two_ways_keeps_what_either_needs() -> None:
    model = Net(
        lambda net, x: [net.conv(net.stem(x)), net.out(net.linear(x) * net.conv.weight)],
        stem=nn.Conv1d(2, 2, 1),
        conv=nn.Conv1d(2, 2, 3, bias=False),
        linear=nn.Linear(5, 3),
        out=nn.Linear(3, 1),
    )
    zero_(model, "conv.weight", slice(None), 1)
    zero_(model, "out.weight", slice(None), 1)
    assert checked(model, torch.rand(2, 2, 5)).shape.indices == {}


def test_a_map_is_zero_only_if_all_of_it_is() -> None:
    model = Net(
        lambda net, x: net.out(net.into(x) * net.map),
        into=nn.Conv2d(3, 4, 1),
        map=nn.Parameter(torch.rand(4, 8, 8)),
        out=nn.Conv2d(4, 2, 1),
    )
    zero_(model, "map", slice(None), 0, 0)
    zero_(model, "map", 3)
    small = checked(model)
    assert kept(small, "into.weight") == kept(small, "map") == [0, 1, 2]


def test_channels_that_are_spread_over_another_axis_stay() -> None:
    model = Net(
        lambda net, x: net.out(net.into(x) * net.across(net.seed)),
        into=nn.Conv2d(3, 4, 1),
        across=nn.Linear(2, 8),
        seed=nn.Parameter(torch.rand(1, 1, 1, 2)),
        out=nn.Conv2d(4, 2, 1),
    )
    zero_(model, "out.weight", slice(None), 1)
    small = checked(model)
    assert small.removed == 1 and 0 not in small.shape.indices.get("across.weight", {})


def test_a_buffer_that_no_file_holds_keeps_its_size() -> None:
    model = Net(lambda net, x: net.out(net.into(x) * net.mask), into=nn.Conv2d(3, 4, 1), out=nn.Conv2d(4, 2, 1))
    model.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0, 1.0]).view(4, 1, 1), persistent=False)
    assert checked(model).removed == 0
    model.register_buffer("mask", model.mask, persistent=True)
    assert kept(checked(model), "mask") == [0, 2, 3]


def test_outputs_inputs_and_unread_parameters_stay() -> None:
    model = Net(
        lambda net, x: {"a": net.into(x), "b": net.out(net.into(x))},
        into=nn.Conv2d(3, 4, 1),
        out=nn.Conv2d(4, 2, 1),
        idle=nn.Conv2d(4, 4, 1),
    )
    zero_(model, "into.weight")
    zero_(model, "out.weight")
    zero_(model, "idle.weight")
    assert checked(model).removed == 0


@pytest.mark.parametrize(
    ("code", "removed"),
    [
        (lambda net, x: net.out(net.into(x).view(-1, 4 * 64)), 0),
        (lambda net, x: net.out(net.into(x).view(x.shape[0], -1)), 2),
        (lambda net, x: net.last(torch.cat(net.into(x).split(2, 1)[::-1], 1)), 0),
        (lambda net, x: net.last(torch.cat(net.into(x).split(net.into.out_channels // 2, 1)[::-1], 1)), 2),
    ],
)
def test_sizes_written_into_the_code_are_respected(code: Callable[[Any, Tensor], Tensor], removed: int) -> None:
    model = Net(code, into=nn.Conv2d(3, 4, 1), out=nn.Linear(256, 2), last=nn.Conv2d(4, 2, 1))
    zero_(model, "last.weight", slice(None), [1, 3])
    zero_(model, "out.weight", slice(None), slice(64, 128))
    zero_(model, "out.weight", slice(None), slice(192, 256))
    assert checked(model).removed == removed


def refusing(net: Any, x: Tensor) -> Tensor:
    y = net.into(x)
    if y.shape[1] != 4:
        raise ValueError("four channels, please")
    out: Tensor = net.out(y)
    return out


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (refusing, r"does not run with fewer channels \(ValueError: four channels, please\)"),
        (lambda net, x: net.out(net.into(x) * net.into(x).shape[1]), "differ by .* of the largest output"),
        (lambda net, x: [net.out(net.into(x))] * net.into(x).shape[1], "have other shapes"),
        (lambda net, x: net.out(net.into(x)) if x.sum() > 0 else x, "torch.export cannot trace this network"),
        (lambda net, x: net.out(net.into(x) @ torch.ones(8, 8)), "does not run in float64"),
    ],
)
def test_what_cannot_be_proved_is_refused(code: Callable[[Any, Tensor], Tensor], message: str) -> None:
    model = Net(code, into=nn.Conv2d(3, 4, 1), out=nn.Conv2d(4, 2, 1))
    zero_(model, "out.weight", slice(None), 1)
    with pytest.raises(CheckpointError, match=message) as refused:
        compact(model, X, NONE)
    assert "without --compact" in str(refused.value)


@pytest.mark.parametrize("axis", [0, 2, 3])
def test_code_that_takes_another_way_for_larger_inputs_is_found_out(axis: int) -> None:
    def code(net: Any, x: Tensor) -> Tensor:
        y = net.wide(x)
        y = y - y.mean(1, keepdim=True) if x.shape[axis] > X.shape[axis] else y
        return net.last(y)

    net = Net(code, wide=nn.Conv2d(3, 6, 1), last=nn.Conv2d(6, 2, 1))
    zero_(net, "last.weight", slice(None), [1, 2])
    with pytest.raises(CheckpointError, match="export it without --compact|Export it without --compact"):
        compact(net, X, NONE)


def test_a_small_output_beside_a_large_one_is_looked_at_too() -> None:
    def code(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y = net.wide(x)
        small = y.mean(1, keepdim=True) if len(x) > len(X) else net.last(y)
        return net.last(y), 1e-12 * small

    net = Net(code, wide=nn.Conv2d(3, 6, 1), last=nn.Conv2d(6, 2, 1))
    zero_(net, "last.weight", slice(None), [1, 2])
    with pytest.raises(CheckpointError, match="xport it without --compact"):
        compact(net, X, NONE)


def test_a_bias_in_half_precision_takes_up_no_more_than_it_can() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).half()
    with torch.no_grad():
        net[0].bias.fill_(3e4)
        net[1].bias.fill_(5e4)
        net[1].weight.fill_(1)
    zero_(net, "0.weight", [1])
    with pytest.raises(CheckpointError, match=r"'1.bias' cannot take up the constants before it in torch.float16"):
        compact(net, torch.zeros(1, 3, dtype=torch.float16), NONE)


def test_a_weight_tied_across_kinds_of_layers_stays_whole() -> None:
    net = Net(
        lambda net, x: net.b(torch.relu(net.a(x))), a=nn.Conv2d(3, 8, 3, bias=False), b=nn.ConvTranspose2d(8, 3, 3)
    )
    net.b.weight = net.a.weight
    zero_(net, "a.weight", [2, 5])
    assert checked(net).removed == 0


def test_sums_over_no_axis_and_copies_that_fail() -> None:
    net = Net(lambda net, x: net.a(x) * net.t.sum(0), a=nn.Conv2d(3, 4, 1), t=nn.Parameter(torch.tensor(2.0)))
    assert checked(net).removed == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        normed = torch.nn.utils.weight_norm(nn.Linear(3, 2))
    normed(torch.zeros(1, 3))
    with pytest.raises(CheckpointError, match="this network cannot be copied"):
        compact(normed, torch.zeros(1, 3), NONE)
