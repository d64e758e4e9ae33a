"""Which indices of which axes go together, on networks small enough to say it by hand."""

from __future__ import annotations

import pytest
import torch
from finding import IMAGE, Run, alike, axes, conv, find, ties
from torch import Tensor, nn
from torch.nn import functional


def test_a_residual_stream_goes_together() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = net.first(x)
        x = x + net.inner(x)
        return net.last(functional.gelu(x + net.other(x)))

    found = find(Run(forward, first=conv(1, 3), inner=conv(3, 3), other=conv(3, 3), last=conv(3, 1)), IMAGE)
    stream = ["first.weight:0", "inner.weight:1", "inner.weight:0", "other.weight:1", "other.weight:0", "last.weight:1"]
    assert axes(found) == alike(stream, [1, 2, 3])
    assert ties(found) == [] and found.mixed.tolist() == []


def test_the_networks_input_and_output_stay() -> None:
    found = find(nn.Sequential(conv(1, 2), nn.ReLU(), conv(2, 3)), IMAGE)
    assert axes(found) == {"0.weight:0": [1, 2], "2.weight:1": [1, 2]}


def test_concatenated_channels_keep_their_places() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return net.last(torch.cat([net.one(x), x, net.other(x)], dim=1))

    found = find(Run(forward, one=conv(1, 2), other=conv(1, 3), last=conv(6, 1)), IMAGE)
    assert axes(found) == {
        "one.weight:0": [1, 2],
        "other.weight:0": [3, 4, 5],
        "last.weight:1": [1, 2, 0, 3, 4, 5],
    }


def test_depthwise_channels_go_with_their_filters() -> None:
    found = find(nn.Sequential(conv(1, 3), nn.Conv2d(3, 3, 3, groups=3), conv(3, 1)), IMAGE)
    assert axes(found) == alike(["0.weight:0", "1.weight:0", "1.bias:0", "2.weight:1"], [1, 2, 3])


def test_groups_of_a_convolution_stay_equally_large() -> None:
    found = find(nn.Sequential(conv(1, 4), conv(4, 4, groups=2), conv(4, 1)), IMAGE)
    assert axes(found) == {
        "0.weight:0": [1, 2, 1, 2],  # one column of the weight is the same place in every group
        "1.weight:1": [1, 2],
        "1.weight:0": [3, 4, 5, 6],
        "2.weight:1": [3, 4, 5, 6],
    }
    assert ties(found) == [[[3, 4], [5, 6]]]


def test_a_gate_in_two_halves_goes_by_pairs() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        one, other = net.first(x).chunk(2, dim=1)
        return net.last(functional.gelu(one) * other)

    found = find(Run(forward, first=conv(1, 4), last=conv(2, 1)), IMAGE)
    assert axes(found) == {"first.weight:0": [1, 2, 1, 2], "last.weight:1": [1, 2]}
    assert ties(found) == []


def test_halves_that_do_not_meet_stay_equally_large() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        one, other = net.first(x).chunk(2, dim=1)
        return net.left(one) + net.right(other)

    found = find(Run(forward, first=conv(1, 4), left=conv(2, 1), right=conv(2, 1)), IMAGE)
    assert axes(found) == {"first.weight:0": [1, 2, 3, 4], "left.weight:1": [1, 2], "right.weight:1": [3, 4]}
    assert ties(found) == [[[1, 2], [3, 4]]]


def test_parts_of_sizes_written_into_the_code_stay() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        one, other = net.first(x).split([1, 2], dim=1)
        return net.left(one) + net.right(other)

    found = find(Run(forward, first=conv(1, 3), left=conv(1, 1), right=conv(2, 1)), IMAGE)
    assert axes(found) == {}


def test_a_pixel_shuffle_takes_blocks_of_channels() -> None:
    found = find(nn.Sequential(conv(1, 8), nn.PixelShuffle(2), conv(2, 1)), IMAGE)
    assert axes(found) == {"0.weight:0": [1, 1, 1, 1, 2, 2, 2, 2], "2.weight:1": [1, 2]}
    found = find(nn.Sequential(conv(1, 2), nn.PixelUnshuffle(2), conv(8, 1)), IMAGE)
    assert axes(found) == {"0.weight:0": [1, 2], "2.weight:1": [1, 1, 1, 1, 2, 2, 2, 2]}


def test_a_shuffle_written_out_by_hand_takes_blocks_too() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = net.first(x).reshape(1, -1, 2, 2, 4, 4).permute(0, 1, 4, 2, 5, 3).reshape(1, -1, 8, 8)
        return net.last(x)

    found = find(Run(forward, first=conv(1, 8), last=conv(2, 1)), IMAGE)
    assert axes(found) == {"first.weight:0": [1, 1, 1, 1, 2, 2, 2, 2], "last.weight:1": [1, 2]}


def test_a_transposed_convolution_has_its_inputs_first() -> None:
    found = find(nn.Sequential(conv(1, 2), nn.ConvTranspose2d(2, 3, 2, stride=2), conv(3, 1)), IMAGE)
    assert axes(found) == {
        "0.weight:0": [1, 2],
        "1.weight:0": [1, 2],
        "1.bias:0": [3, 4, 5],
        "1.weight:1": [3, 4, 5],
        "2.weight:1": [3, 4, 5],
    }


def test_batch_norm_takes_its_statistics_along() -> None:
    found = find(nn.Sequential(conv(1, 2), nn.BatchNorm2d(2), conv(2, 1)), IMAGE)
    own = ["1.weight:0", "1.bias:0", "1.running_mean:0", "1.running_var:0"]
    assert axes(found) == alike(["0.weight:0", *own, "2.weight:1"], [1, 2])
    assert found.mixed.tolist() == []


def test_layer_norm_mixes_what_it_norms_and_is_told_how_many() -> None:
    found = find(nn.Sequential(nn.Linear(2, 3, bias=False), nn.LayerNorm(3), nn.Linear(3, 1)), torch.zeros(1, 2))
    assert axes(found) == alike(["0.weight:0", "1.weight:0", "1.bias:0", "2.weight:1"], [1, 2, 3])
    assert {path: ids.tolist() for path, ids in found.sizes.items()} == {"1.normalized_shape": [1, 2, 3]}
    assert found.mixed.tolist() == [1, 2, 3]


def test_group_norm_keeps_its_groups_equally_large() -> None:
    found = find(nn.Sequential(conv(1, 4), nn.GroupNorm(2, 4), conv(4, 1)), IMAGE)
    assert axes(found) == alike(["0.weight:0", "1.weight:0", "1.bias:0", "2.weight:1"], [1, 2, 3, 4])
    assert ties(found) == [[[1, 2], [3, 4]]]
    assert {path: ids.tolist() for path, ids in found.sizes.items()} == {"1.num_channels": [1, 2, 3, 4]}
    assert found.mixed.tolist() == [1, 2, 3, 4]


class Norm(nn.Module):
    """A norm over channels with bare parameters, written out."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))

    def forward(self, x_bchw: Tensor) -> Tensor:
        mean, var = x_bchw.mean(1, keepdim=True), x_bchw.var(1, keepdim=True)
        return (x_bchw - mean) / (var + 1e-5).sqrt() * self.scale[:, None, None] + self.shift.view(1, -1, 1, 1)


def test_bare_parameters_of_a_norm_go_along() -> None:
    found = find(nn.Sequential(conv(1, 3), Norm(3), conv(3, 1)), IMAGE)
    assert axes(found) == alike(["0.weight:0", "1.scale:0", "1.shift:0", "2.weight:1"], [1, 2, 3])
    assert found.mixed.tolist() == [1, 2, 3]


class Transposed(nn.Module):
    """Attention between channels in two heads."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv, self.out = conv(1, 3 * channels), conv(channels, 1)
        self.temperature = nn.Parameter(torch.ones(2, 1, 1))

    def forward(self, x_bchw: Tensor) -> Tensor:
        b, _, h, w = x_bchw.shape
        q, k, v = (each.reshape(b, 2, -1, h * w) for each in self.qkv(x_bchw).chunk(3, dim=1))
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        attention = (q @ k.transpose(-2, -1) * self.temperature).softmax(-1)
        return self.out((attention @ v).reshape(b, -1, h, w))


def test_heads_of_channel_attention_stay_equally_wide() -> None:
    found = find(Transposed(4), IMAGE)
    keys, queries = [5, 6, 7, 8], [1, 2, 3, 4]
    assert axes(found) == {
        "qkv.weight:0": [*queries, *keys, *keys],  # what is attended to is read at the same place
        "out.weight:1": queries,
    }
    assert ties(found) == [[[1, 2], [3, 4], [5, 6], [7, 8]]]
    assert found.mixed.tolist() == keys  # over which the softmax goes


class Tokens(nn.Module):
    """Attention between tokens in two heads, as timm writes it."""

    def __init__(self, *, fused: bool, scale: float | None) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(2, 12, bias=False), nn.Linear(4, 1)
        self.fused, self.scale = fused, scale

    def forward(self, x_bnc: Tensor) -> Tensor:
        b, n, _ = x_bnc.shape
        q, k, v = self.qkv(x_bnc).reshape(b, n, 3, 2, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            x = functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        else:
            x = (q @ k.transpose(-2, -1) * 0.7).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).reshape(b, n, -1))


@pytest.mark.parametrize("fused", [False, True])
def test_heads_of_token_attention_stay_equally_wide(*, fused: bool) -> None:
    found = find(Tokens(fused=fused, scale=0.7), torch.zeros(1, 3, 2))
    keys, values = [1, 2, 3, 4], [5, 6, 7, 8]  # a query meets its key
    assert axes(found) == {"qkv.weight:0": [*keys, *keys, *values], "proj.weight:1": values}
    assert ties(found) == [[[1, 2], [3, 4], [5, 6], [7, 8]]]
    assert found.mixed.tolist() == []


def test_attention_that_divides_by_the_width_of_a_head_mixes_it() -> None:
    found = find(Tokens(fused=True, scale=None), torch.zeros(1, 3, 2))
    assert found.mixed.tolist() == [1, 2, 3, 4]  # queries and keys: with fewer the products are divided by less
