"""LPIPS and DISTS with a stand-in for piq: what they are given, and what is said where something is missing."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import Tensor

from prunekit.errors import RecipeError
from prunekit_mir_l.metrics import chosen
from prunekit_mir_l.task import mir_l

ADDRESS = "https://example.org/lpips_weights.pt"


class Apart:
    """Tells the mean difference of two batches of the shape and range that piq wants."""

    _weights_url = ADDRESS

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        assert x.shape == y.shape == (1, 3, 32, 40)
        assert x.dtype == torch.float32 and 0 <= x.min() <= x.max() <= 1
        return (x - y).abs().mean()


class Unreachable:
    """Stands for a network whose weights nobody can fetch."""

    _weights_url = ADDRESS

    def __init__(self) -> None:
        raise URLError("no route to host")


def stand_in(monkeypatch: pytest.MonkeyPatch, made: Any) -> None:
    module = ModuleType("piq")
    module.LPIPS = module.DISTS = made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "piq", module)


@pytest.mark.parametrize("name", ["lpips", "dists"])
def test_distances_are_of_clipped_rgb_and_lower_is_better(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    stand_in(monkeypatch, Apart)
    (metric,) = chosen([name])
    image, target = np.full((32, 40, 3), 1.5, np.float32), np.full((32, 40, 3), 0.75, np.float32)
    assert metric(image, target) == 0.25
    assert not metric.higher_is_better
    assert metric.protocol.startswith(f"{name.upper()} (piq, VGG16) of RGB clipped to [0, 1]")


def test_test_images_that_are_too_small_are_named_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, Apart)
    with pytest.raises(RecipeError, match=r"'lpips' needs 32 pixels a side, and of .*chelsea.* 16 x 16 are measured"):
        mir_l(steps=1, metrics=["lpips"], test_crop=16, tasks=["denoise"])
    assert mir_l(steps=1, metrics=["lpips"], test_crop=32, tasks=["denoise"]).metrics[0].name == "lpips"


@pytest.mark.parametrize("name", ["lpips", "dists"])
def test_without_piq_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, "piq", None)
    with pytest.raises(RecipeError, match=rf"metric '{name}' needs piq .*prunekit-mir-l\[perceptual\]"):
        chosen(["psnr", name])


def test_without_weights_the_files_and_their_folder_are_named_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    hub = tmp_path_factory.mktemp("hub")
    monkeypatch.setenv("TORCH_HOME", str(hub))
    (hub / "hub" / "checkpoints").mkdir(parents=True)
    (hub / "hub" / "checkpoints" / "lpips_weights.pt").touch()
    stand_in(monkeypatch, Unreachable)
    with pytest.raises(RecipeError) as told:
        mir_l(steps=1, metrics=["psnr", "lpips"])
    message = str(told.value)
    assert "weights of metric 'lpips' cannot be had (<urlopen error no route to host>)" in message
    assert f"read from {hub / 'hub' / 'checkpoints'}" in message
    assert "vgg16-397923af.pth (missing)" in message and f"{ADDRESS} (there)" in message
