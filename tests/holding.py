"""A small model, a ticket of it and a training step, for the tests of `hold`."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from prunekit.masks import Masks


def toy() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4))


def ticket(model: nn.Module, density: float = 0.4) -> Masks:
    generator = torch.Generator().manual_seed(1)
    dense = Masks.dense(model)
    return Masks({name: torch.rand(mask.shape, generator=generator) < density for name, mask in dense.items()})


def step(model: nn.Module, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(4, 3, 6, 6)).square().mean().backward()
    optimizer.step()


def survivors_only(model: nn.Module, masks: Masks) -> bool:
    """Whether cut weights are zero, and (so that the test can fail) the kept ones are not."""
    named = {name.removeprefix("_orig_mod."): p for name, p in model.named_parameters()}
    return all(torch.equal(named[name] != 0, mask) for name, mask in masks.items())
