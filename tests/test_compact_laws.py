"""Compaction over random masks and real networks: outputs stay, and nothing is left to remove."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from compacting import X, checked
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import prunekit as pk
from prunekit.measure import count_macs
from prunekit.network import bind_network
from prunekit.sparse.compact import compact


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def dice(shape: torch.Size, density: float, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator) < density


@settings(max_examples=4, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=3, max_size=5), st.floats(0.05, 0.9), st.integers(0, 99))
@example([7, 2, 1, 1], 0.75, 92)  # the last weight is cut: the one unit before it stays, and needs no more than one
def test_law_a_unit_stays_if_a_path_of_weights_leads_through_it(widths: list[int], density: float, seed: int) -> None:
    """In a perceptron without biases: exactly those on a path from an input to an output, and one of each layer."""
    generator = torch.Generator().manual_seed(seed)
    pairs = list(pairwise(widths))
    model = nn.Sequential()
    for place, (inputs, outputs) in enumerate(pairs):
        model.append(nn.Linear(inputs, outputs, bias=False))
        if place < len(pairs) - 1:
            model.append(nn.ReLU())
    masks = pk.Masks({n: dice(m.shape, density, generator) for n, m in pk.Masks.dense(model).items()})
    ways = [mask.double() for mask in masks.values()]
    down, up = [torch.ones(widths[0])], [torch.ones(widths[-1])]
    for way in ways:
        down.append((way @ down[-1].double() > 0).double())
    for way in reversed(ways):
        up.append((way.T @ up[-1].double() > 0).double())
    expected = [max(1, int((a * b).sum())) for a, b in zip(down, reversed(up), strict=True)]
    small = checked(model, torch.randn(3, widths[0]), masks)
    layers = [layer for layer in small.model if isinstance(layer, nn.Linear)]
    found = [layers[0].in_features, *(layer.out_features for layer in layers)]
    assert found[1:-1] == expected[1:-1] and (found[0], found[-1]) == (widths[0], widths[-1])


class Block(nn.Module):
    """A bit of everything: norm, depthwise, gate, squeeze-and-excite, scales, residuals, concatenation, shuffles."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.LeakyReLU(0.1, inplace=True))
        self.norm = nn.GroupNorm(1, 8)
        self.gated = nn.Conv2d(8, 24, 1)
        self.depth = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.squeeze = nn.Conv2d(12, 12, 1)
        self.back = nn.Conv2d(12, 8, 1)
        self.beta = nn.Parameter(torch.rand(8, 1, 1) + 0.5)
        self.mlp = nn.Sequential(nn.Conv2d(8, 16, 1), nn.Hardswish(), nn.Conv2d(16, 8, 1))
        self.down = nn.Conv2d(8, 4, 3, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.out = nn.Conv2d(19, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        one, other = self.depth(self.gated(self.norm(y))).chunk(2, dim=1)
        gate = one * other
        gate = gate * torch.sigmoid(self.squeeze(gate.mean((2, 3), keepdim=True)))
        y = y + self.back(gate) * self.beta
        z = y + self.mlp(y)
        low = F.relu(self.up(F.relu(F.pixel_unshuffle(self.down(z), 2))))
        out: Tensor = F.pixel_shuffle(self.out(torch.cat([low, z, x], 1)), 2)
        return out


@pytest.mark.slow
@pytest.mark.parametrize(("density", "seed"), [(0.02, 0), (0.2, 1)])
def test_outputs_stay_and_nothing_is_left_to_remove(density: float, seed: int) -> None:
    check_block(density, seed)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.floats(0.02, 0.6), st.integers(0, 999))
def test_law_outputs_stay_and_nothing_is_left_to_remove(density: float, seed: int) -> None:
    check_block(density, seed)


def check_block(density: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = Block()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():  # large enough that every path would show
                tensor.copy_(
                    torch.randn(tensor.shape, generator=generator).abs() if tensor.dim() < 2 else tensor.sign()
                )
                tensor.mul_(dice(tensor.shape, 0.7, generator).float() if tensor.dim() < 2 else 1.0)
    model.stem[1].running_var.add_(1.0)
    masks = pk.Masks({n: dice(m.shape, density, generator) for n, m in pk.Masks.dense(model).items()})
    small = checked(model, X, masks)
    assert small.removed > 0 or density > 0.2
    assert count_macs(small.model, X).dense <= count_macs(model, X).dense
    again = compact(small.model, X, small.masks)
    assert again.removed == 0 and again.shape.indices == {}
    replayed = copy.deepcopy(model).eval()
    masks.apply_(replayed)
    small.shape.apply_(replayed)
    with torch.no_grad():
        for name, bias in small.biases.items():
            replayed.get_parameter(name).copy_(bias)
    state = replayed.state_dict()
    assert state.keys() == small.model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in small.model.state_dict().items())
    assert str(replayed) == str(small.model)


@pytest.mark.slow
@pytest.mark.parametrize("density", [0.005, 0.02])
def test_resnet18(density: float) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18")
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.normal_()
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2.0)
    small = checked(model, torch.rand(1, 3, 64, 64), pk.prune(model, pk.Masks.dense(model), density))
    assert small.removed > 0


@pytest.mark.slow
@pytest.mark.parametrize("density", [0.05, 0.1])
def test_promptir(density: float) -> None:
    pytest.importorskip("prunekit_mir_l")
    model = bind_network("promptir_tiny")()
    masks = pk.prune(model, pk.Masks.dense(model), density, allocation=pk.per_layer())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in masks:
                parameter.mul_(density**-0.5)  # so that the network's own part is not lost beside its residual
    small = checked(model, torch.rand(1, 3, 64, 64), masks)
    assert small.removed > 1000
