"""Small networks whose channels meet in one way or another, and what goes together in them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunekit.structured.find import Found

Groups = dict[tuple[str, int], list[int]]


def groups(found: Found) -> Groups:
    """Return components numbered anew in the order of the axes' names, so that two findings can be compared."""
    seen: dict[int, int] = {0: 0}
    return {
        axis: [seen.setdefault(each, len(seen)) for each in ids.tolist()] for axis, ids in sorted(found.axes.items())
    }


class Gate(nn.Module):
    """The halves of a map, multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(3, 4, 1), nn.Conv2d(2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.wide(x).chunk(2, dim=1)
        return self.narrow(one * other)


class Joined(nn.Module):
    """The input beside what is made of it, or added to it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.before = nn.Conv2d(3, 3, 1)
        self.after = nn.Conv2d(6 if how == "beside" else 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        made = self.before(x)
        return self.after(torch.cat((x, made), 1) if self.how == "beside" else x + made)


class Scaled(nn.Module):
    """A bare parameter and a slope for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.slope, self.last = nn.Conv2d(3, 8, 1), nn.PReLU(8), nn.Conv2d(8, 3, 1)
        self.scale = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.slope(self.first(x)) * self.scale)


class Tied(nn.Module):
    """Two layers, one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.last = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.Linear(3, 1)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.other(self.one(x).relu()).relu())


class Dense(nn.Module):
    """Every layer sees all before it, as in DenseNet; then perhaps a residual over all."""

    def __init__(self, *, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 4, 3, padding=1)) for width in (6, 10, 14)
        )
        self.mix, self.head = nn.Conv2d(18, 18, 1), nn.Conv2d(18, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.stem(x)]
        for layer in self.layers:
            maps.append(layer(torch.cat(maps, 1)))
        every = torch.cat(maps, 1)
        return self.head(self.mix(every) + every if self.residual else self.mix(every))


def vgg() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16 * 4 * 4, 12), nn.ReLU(), nn.Linear(12, 5)),
    )


def upsampler() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3, stride=2), nn.PReLU(6), nn.Conv2d(6, 6, 3, padding=1, groups=6)),
        *(nn.ConvTranspose2d(6, 4, 2, stride=2), nn.ReLU(), nn.ConvTranspose2d(4, 3, 1)),
    )
