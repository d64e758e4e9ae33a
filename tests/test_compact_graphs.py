"""Compaction of graphs: channels that must go together do, under gates, skips, shuffles, reshapes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from compacting import Net, checked, kept, zero_
from torch import Tensor, nn


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_a_residual_channel_goes_if_nobody_along_the_stream_reads_it() -> None:
    model = Net(
        lambda net, x: net.out(F.relu(net.stem(x) + net.gamma * net.body(F.silu(net.stem(x))))),
        stem=nn.Conv2d(3, 5, 1),
        body=nn.Conv2d(5, 5, 3, padding=1),
        gamma=nn.Parameter(torch.rand(1, 5, 1, 1) + 1),
        out=nn.Conv2d(5, 2, 1),
    )
    zero_(model, "out.weight", slice(None), [1, 3])
    zero_(model, "body.weight", slice(None), [1, 2])
    small = checked(model)
    assert kept(small, "stem.weight") == kept(small, "body.weight") == kept(small, "body.weight", 1) == [0, 2, 3, 4]
    assert small.model.gamma.shape == (1, 4, 1, 1)


class Gated(nn.Module):
    """A gated feed-forward with depthwise convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 8, 1)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.shrink = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.depth(self.expand(x)).chunk(2, dim=1)
        out: Tensor = self.shrink(F.gelu(one) * other)
        return out


def test_a_gated_channel_goes_if_either_half_is_zero_or_the_product_is_not_read() -> None:
    model = Gated()
    zero_(model, "depth.weight", [1, 6])
    zero_(model, "shrink.weight", slice(None), 0)
    small = checked(model)
    assert kept(small, "expand.weight") == [3, 7] and kept(small, "depth.weight") == [3, 7]
    assert small.shape.attributes == {
        "expand.out_channels": 2,
        "depth.in_channels": 2,
        "depth.out_channels": 2,
        "depth.groups": 2,
        "shrink.in_channels": 1,
    }
    assert small.removed == 12


def test_halves_that_are_read_apart_stay_equally_long() -> None:
    model = Net(
        lambda net, x: [layer(part) for layer, part in zip(net.outs, net.into(x).chunk(2, 1), strict=True)],
        into=nn.Conv2d(3, 6, 1),
        outs=nn.ModuleList([nn.Conv2d(3, 1, 1), nn.Conv2d(3, 1, 1)]),
    )
    zero_(model, "outs.0.weight", 0, [0, 1])
    zero_(model, "outs.1.weight", 0, [1, 2])
    assert kept(checked(model), "into.weight") == [0, 2, 3, 5]


def test_a_skip_by_concatenation_is_cut_on_both_sides() -> None:
    model = Net(
        lambda net, x: net.out(torch.cat([net.a(x), net.b(net.a(x)), x], 1)),
        a=nn.Conv2d(3, 4, 1),
        b=nn.Conv2d(4, 3, 1),
        out=nn.Conv2d(10, 2, 1),
    )
    zero_(model, "out.weight", slice(None), [0, 1, 4, 5, 8])  # a0 a1 b0 b1 x1
    zero_(model, "b.weight", slice(None), [1, 2])
    zero_(model, "b.weight", 2, 0)
    small = checked(model)
    assert kept(small, "a.weight") == [2, 3] and kept(small, "b.weight") == [2]
    assert kept(small, "out.weight", 1) == [2, 3, 6, 7, 8, 9]


def test_pixel_shuffle_keeps_whole_blocks_and_unshuffle_reads_them() -> None:
    up = Net(lambda net, x: net.out(F.pixel_shuffle(net.a(x), 2)), a=nn.Conv2d(3, 12, 1), out=nn.Conv2d(3, 2, 3))
    zero_(up, "out.weight", slice(None), 1)
    assert kept(checked(up), "a.weight") == [0, 1, 2, 3, 8, 9, 10, 11]
    down = Net(lambda net, x: net.out(F.pixel_unshuffle(net.a(x), 2)), a=nn.Conv2d(3, 3, 1), out=nn.Conv2d(12, 2, 3))
    zero_(down, "out.weight", slice(None), [0, 1, 2, 3, 4, 5])
    assert kept(checked(down), "a.weight") == [1, 2]
    zero_(up, "a.weight", slice(4, 9))
    zero_(up, "a.bias", slice(4, 9))
    with torch.no_grad():
        up.out.weight.fill_(1.0)
    assert kept(checked(up), "a.weight") == [0, 1, 2, 3, 8, 9, 10, 11]  # of the last block only one is zero


def test_flattened_channels_go_with_all_their_columns() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))
    zero_(model, "4.weight", slice(None), slice(9, 18))
    zero_(model, "4.weight", slice(None), slice(27, 30))
    small = checked(model)
    assert kept(small, "0.weight") == [0, 2, 3] and small.model[4].in_features == 27
    assert kept(small, "4.weight", 1) == [*range(9), *range(18, 36)]


def test_channels_are_followed_to_the_last_axis_and_into_tokens() -> None:
    model = Net(
        lambda net, x: net.two(F.gelu(net.one(net.a(x).flatten(2).transpose(1, 2)))).mean(1),
        a=nn.Conv2d(3, 4, 2, stride=2),
        one=nn.Linear(4, 6),
        two=nn.Linear(6, 2),
    )
    zero_(model, "one.weight", slice(None), 2)
    zero_(model, "two.weight", slice(None), [0, 5])
    small = checked(model)
    assert kept(small, "a.weight") == [0, 1, 3] and kept(small, "one.weight") == [1, 2, 3, 4]


def test_a_transposed_convolution_has_its_outputs_on_the_second_axis() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 5, 2, stride=2), nn.Conv2d(5, 2, 1))
    zero_(model, "1.weight", 3)
    zero_(model, "2.weight", slice(None), [0, 4])
    small = checked(model)
    assert small.model[1].weight.shape == (3, 3, 2, 2)
    assert (small.model[1].in_channels, small.model[1].out_channels) == (3, 3)


def test_a_layer_used_twice_stays_tied() -> None:
    shared = nn.Conv2d(4, 4, 3, padding=1, bias=False)
    model = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), shared, nn.ReLU(), shared, nn.Conv2d(4, 2, 1))
    zero_(model, "1.weight", slice(None), 1)
    zero_(model, "4.weight", slice(None), [1, 2])
    small = checked(model)
    assert small.model[1] is small.model[3] and small.model[1].weight.shape == (3, 3, 3, 3)
    assert small.model[0].weight.requires_grad and isinstance(small.model[0].weight, nn.Parameter)
