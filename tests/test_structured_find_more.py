"""What goes together in tiny networks: shared tensors, buffers, pixels, and what nobody knows."""

from __future__ import annotations

import pytest
import torch
from finding import IMAGE, Run, alike, axes, conv, find
from torch import Tensor, nn
from torch.nn import functional

from prunekit.errors import SelectionError


def test_tied_weights_are_one_tensor() -> None:
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    net.append(nn.Linear(3, 1))
    net[2].weight = net[1].weight
    found = find(net, torch.zeros(1, 2))
    assert axes(found) == alike(["0.weight:0", "1.weight:1", "1.weight:0", "3.weight:1"], [1, 2, 3])


def test_an_embedding_tied_to_the_output_shrinks_inside_only() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(5, 2), nn.Linear(2, 5, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.embed(tokens))

    assert axes(find(Words(), torch.zeros(1, 3, dtype=torch.long))) == {"embed.weight:1": [1, 2]}


def test_a_layer_used_twice_has_one_stream() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return net.last(net.inner(net.inner(net.first(x)).relu()))

    found = find(Run(forward, first=conv(1, 3), inner=conv(3, 3), last=conv(3, 1)), IMAGE)
    assert axes(found) == alike(["first.weight:0", "inner.weight:1", "inner.weight:0", "last.weight:1"], [1, 2, 3])


@pytest.mark.parametrize("saved", [True, False])
def test_buffers_go_along_if_a_file_holds_them(*, saved: bool) -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return net.last(net.first(x) * net.scale)

    net = Run(forward, first=nn.Linear(2, 3, bias=False), last=nn.Linear(3, 1))
    net.register_buffer("scale", torch.ones(3), persistent=saved)
    expected = alike(["first.weight:0", "scale:0", "last.weight:1"], [1, 2, 3])
    assert axes(find(net, torch.zeros(1, 2))) == (expected if saved else {})


def test_pixels_flattened_go_with_their_channel() -> None:
    net = nn.Sequential(conv(1, 2), nn.Flatten(), nn.Linear(8, 3), nn.Linear(3, 1))
    found = find(net, torch.zeros(1, 1, 2, 2))
    assert axes(found) == {
        "0.weight:0": [1, 2],
        "2.weight:1": [1, 1, 1, 1, 2, 2, 2, 2],
        "2.bias:0": [3, 4, 5],
        "2.weight:0": [3, 4, 5],
        "3.weight:1": [3, 4, 5],
    }


def test_pooled_and_resized_channels_stay_by_themselves() -> None:
    net = nn.Sequential(
        conv(1, 2), nn.MaxPool2d(2), nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.AdaptiveMaxPool2d(2)
    ).append(nn.AdaptiveAvgPool2d(1))
    found = find(nn.Sequential(net, conv(2, 1)), IMAGE)
    assert axes(found) == {"0.0.weight:0": [1, 2], "1.weight:1": [1, 2]}
    assert found.mixed.tolist() == []


@pytest.mark.parametrize("unknown", [lambda x: x.cumsum(1), lambda x: x.sort(1).values, lambda x: x.flip(1)])
def test_what_no_rule_knows_stays(unknown: object) -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return net.last(net.then(unknown(net.first(x))))

    found = find(Run(forward, first=conv(1, 2), then=conv(2, 3), last=conv(3, 1)), IMAGE)
    assert axes(found) == {"then.weight:0": [1, 2, 3], "last.weight:1": [1, 2, 3]}


def test_channels_picked_by_number_stay() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = net.first(x)
        return net.last(x[:, 1:3]) + x[:, 0:1] + x[:, 3].unsqueeze(1)

    assert axes(find(Run(forward, first=conv(1, 4), last=conv(2, 1)), IMAGE)) == {}


def test_a_map_over_all_channels_leaves_them_free() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = net.first(x)
        return net.last(x * x.mean(dim=1, keepdim=True).sigmoid())

    found = find(Run(forward, first=conv(1, 3), last=conv(3, 1)), IMAGE)
    assert axes(found) == alike(["first.weight:0", "last.weight:1"], [1, 2, 3])
    assert found.mixed.tolist() == [1, 2, 3]


def test_a_channel_attended_by_another_layer_goes_with_its_gate() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = net.first(x)
        gate = net.up(net.down(x.mean((2, 3))).relu()).sigmoid()
        return net.last(x * gate[:, :, None, None])

    layers = {"first": conv(1, 3), "down": nn.Linear(3, 2), "up": nn.Linear(2, 3), "last": conv(3, 1)}
    found = find(Run(forward, **layers), IMAGE)
    stream = alike(["first.weight:0", "down.weight:1", "up.bias:0", "up.weight:0", "last.weight:1"], [1, 2, 3])
    assert axes(found) == stream | alike(["down.bias:0", "down.weight:0", "up.weight:1"], [4, 5])


def test_excluded_parameters_hold_what_goes_with_them() -> None:
    net = nn.Sequential(conv(1, 2), conv(2, 3), conv(3, 1))
    assert axes(find(net, IMAGE, exclude=("1.weight",))) == {}
    assert set(axes(find(net, IMAGE, exclude=("2.*",)))) == {"0.weight:0", "1.weight:1"}
    with pytest.raises(SelectionError, match="exclude: '3.weight' matches no name"):
        find(net, IMAGE, exclude=("3.weight",))


def test_groups_of_one_output_each_stay() -> None:
    found = find(nn.Sequential(conv(1, 4), conv(4, 2, groups=2), conv(2, 1)), IMAGE)
    assert axes(found) == {"0.weight:0": [1, 2, 1, 2], "1.weight:1": [1, 2]}
    found = find(nn.Sequential(conv(1, 4), nn.GroupNorm(4, 4), conv(4, 1)), IMAGE)
    assert axes(found) == {}


def test_parts_of_one_channel_each_can_be_reshaped() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        one, other = net.first(x).chunk(2, dim=1)
        return net.last(net.then((one * other).flatten(1)))

    layers = {"first": conv(1, 2), "then": nn.Linear(16, 2), "last": nn.Linear(2, 1)}
    assert set(axes(find(Run(forward, **layers), IMAGE))) == {"then.weight:0", "then.bias:0", "last.weight:1"}


def test_heads_of_one_channel_can_be_reshaped() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        x = net.first(x).reshape(1, 3, 2, 2).softmax(1).reshape(1, 3, 2, 2, 1).chunk(2, dim=3)[0]
        return net.last(x.reshape(1, 3, 2))

    layers = {"first": nn.Linear(2, 4), "last": nn.Linear(2, 1)}
    assert axes(find(Run(forward, **layers), torch.zeros(1, 3, 2))) == {}


def test_kernels_of_grouped_convolutions_stay() -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, groups=2, bias=False), nn.Conv2d(4, 1, 1, bias=False))
    assert axes(find(net, torch.zeros(1, 2, 4, 4))) == {"0.weight:0": [1, 2, 3, 4], "1.weight:1": [1, 2, 3, 4]}


def test_pixels_of_a_parameter_that_is_resized_stay() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return x + net.last(functional.interpolate(net.prompt, size=(4, 4)).flatten(1)).sum()

    net = Run(forward, last=nn.Linear(48, 1))
    net.register_parameter("prompt", nn.Parameter(torch.zeros(1, 3, 2, 2)))
    last = [channel for channel in (1, 2, 3) for _ in range(16)]
    assert axes(find(net, IMAGE)) == {"prompt:1": [1, 2, 3], "last.weight:1": last}


def test_a_grouped_convolution_with_a_bias_shrinks_on_both_sides() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 1, 1, bias=False))
    assert axes(find(net, IMAGE)) == {
        "0.weight:0": [1, 2, 1, 2],
        "1.weight:0": [3, 4, 5, 6],
        "1.weight:1": [1, 2],
        "1.bias:0": [3, 4, 5, 6],
        "2.weight:1": [3, 4, 5, 6],
    }
