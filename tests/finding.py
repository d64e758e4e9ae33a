"""What the finder's tests share: tiny networks by function, and groups as plain lists."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunekit.budget import Limit
from prunekit.structured.declare import Declared
from prunekit.structured.find import Found, concluded, walked
from prunekit.trace import traced

IMAGE = torch.zeros(1, 1, 4, 4)


def find(
    model: nn.Module, example: Tensor, *, exclude: tuple[str, ...] = (), declared: Declared | None = None
) -> Found:
    """Return what the graph alone shows, and what is declared; nothing is tried."""
    return concluded(walked(model, traced(model, example), Limit()), model, exclude, declared)


def conv(inputs: int, outputs: int, size: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups, bias=False)


def axes(found: Found) -> dict[str, list[int]]:
    return {f"{name}:{axis}": ids.tolist() for (name, axis), ids in found.axes.items()}


def ties(found: Found) -> list[list[list[int]]]:
    return [[lane.tolist() for lane in tie] for tie in found.ties]


def alike(names: list[str], ids: list[int]) -> dict[str, list[int]]:
    return {name: ids for name in names}


class Run(nn.Module):
    """Layers, and a function that uses them."""

    def __init__(self, forward: object, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.run = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)
