"""Scorers, allocations and schedules that break their word, named in recipes as ``python:rude:NAME``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunekit.amount import Amount
from prunekit.calibration import Calibration
from prunekit.masks import Masks
from prunekit.schedule import Schedule
from prunekit.score import PerTensor, Scorer, Scores


def names() -> Scorer:
    def score(model: nn.Module, data: Calibration) -> dict[str, Tensor]:
        return {f"net.{name}": each.detach() for name, each in model.named_parameters()}

    return score


def nan() -> PerTensor:
    return PerTensor(lambda name, weight: weight * float("nan"))


def shapes() -> PerTensor:
    return PerTensor(lambda name, weight: weight.flatten()[:1])


def reviving() -> object:
    def allocate(scores: Scores, now: Masks, amount: Amount) -> Masks:
        flip = {name: ~mask if not mask.all() else torch.zeros_like(mask) for name, mask in now.items()}
        return Masks(flip)

    return allocate


def rising() -> Schedule:
    return lambda progress: {0.5: 0.5, 1.0: 0.9}[progress]


def nothing() -> Schedule:
    return lambda progress: 0.0
