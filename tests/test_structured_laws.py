"""The law of structured cuts on random networks: no channels are channels of zeros, but where they are mixed."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from finding import find
from torch import Tensor, nn
from torch.nn import functional

from prunekit.score import magnitude
from prunekit.shape import Shape
from prunekit.sizes import tensors_of
from prunekit.structured.choose import Choice
from prunekit.structured.resize import resized
from prunekit.structured.trial import run, shrunk
from prunekit.structured.units import united


class Block(nn.Module):
    """Layers, and a function that uses them."""

    def __init__(self, use: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.use = nn.ModuleList(layers), use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x, *self.layers)


def conv(inputs: int, outputs: int, size: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups)


def squeezed(x: Tensor, down: nn.Module, up: nn.Module) -> Tensor:
    return x * up(down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


def gated(x: Tensor, into: nn.Module, out: nn.Module) -> Tensor:
    one, other = into(x).chunk(2, dim=1)
    return x + out(functional.gelu(one) * other)


def heads(x: Tensor, qkv: nn.Module, out: nn.Module) -> Tensor:
    b, _, h, w = x.shape
    q, k, v = (each.reshape(b, 2, -1, h * w).transpose(2, 3) for each in qkv(x).chunk(3, dim=1))
    attended = (q @ k.transpose(-2, -1)).softmax(-1) @ v
    return out(attended.transpose(2, 3).reshape(b, -1, h, w))


BLOCKS: dict[str, Callable[[int], nn.Module]] = {
    "plain": lambda c: nn.Sequential(conv(c, c, 3), nn.BatchNorm2d(c), nn.ReLU()),
    "wide": lambda c: nn.Sequential(conv(c, 2 * c), nn.PReLU(2 * c), conv(2 * c, c)),
    "residual": lambda c: Block(lambda x, one: x + one(x).relu(), conv(c, c, 3)),
    "joined": lambda c: Block(lambda x, one, out: out(torch.cat([x, one(x)], 1)), conv(c, 2), conv(c + 2, c)),
    "gate": lambda c: Block(gated, conv(c, 8), conv(4, c)),
    "squeeze": lambda c: Block(squeezed, conv(c, 3), conv(3, c)),
    "depthwise": lambda c: nn.Sequential(conv(c, c, 3, groups=c), nn.GELU(), conv(c, c)),
    "grouped": lambda c: conv(c, c, 3, groups=2),
    "shuffle": lambda c: nn.Sequential(conv(c, 4 * c), nn.PixelShuffle(2), nn.PixelUnshuffle(2), conv(4 * c, c)),
    "transposed": lambda c: nn.Sequential(nn.ConvTranspose2d(c, c, 2, stride=2), nn.AvgPool2d(2)),
    "heads": lambda c: Block(heads, conv(c, 24), conv(8, c)),
    "norm": lambda c: nn.GroupNorm(2, c),
    "average": lambda c: Block(lambda x: x * x.mean(1, keepdim=True)),
}
PIXELS = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def network(seed: int) -> nn.Module:
    """Return a few random blocks one after the other, with random statistics."""
    torch.manual_seed(seed)
    kinds = np.random.default_rng(seed).choice(sorted(BLOCKS), size=5)
    model = nn.Sequential(conv(3, 8, 3), *(BLOCKS[kind](8) for kind in kinds), conv(8, 3)).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def zeroed(model: nn.Module, shape: Shape) -> nn.Module:
    """Return a copy of the dense model in which all that a cut takes is zero."""
    model = copy.deepcopy(model)
    for name, axes in shape.indices.items():
        tensor = tensors_of(model)[name].data
        for axis, kept in axes.items():
            gone = torch.ones(tensor.shape[axis], dtype=torch.bool)
            gone[kept] = False
            tensor.index_fill_(axis, gone.nonzero().flatten(), 0)
    return model


@pytest.mark.parametrize(
    "seed", [seed if seed < 6 else pytest.param(seed, marks=pytest.mark.slow) for seed in range(16)]
)
def test_without_channels_is_with_channels_of_zeros(seed: int) -> None:
    model = network(seed)
    found, scores = find(model, PIXELS), magnitude()(model, None)  # type: ignore[arg-type]
    units = united(found, scores.get)
    choice = Choice(units, "local", 1, 1)
    kept = choice.kept(choice.order()[: len(units.worth) // 2])
    shape = resized(model, found, units, kept, {})
    smaller = run(shrunk(model, shape), PIXELS)
    assert smaller.shape == PIXELS.shape and smaller.isfinite().all()
    assert 0 < shape.density < 0.9
    gone = {int(each) for axis, ids in found.axes.items() for each in ids[~kept[units.axes[axis]]]}
    if not gone & set(found.mixed.tolist()):
        with torch.no_grad():
            expected = zeroed(model, shape)(PIXELS)
        assert (smaller - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.slow
def test_some_networks_mix_and_others_do_not() -> None:
    mixed = [bool(len(find(network(seed), PIXELS).mixed)) for seed in range(4)]
    assert set(mixed) == {True, False}
