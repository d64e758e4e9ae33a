"""The registered networks."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch

from prunekit.errors import RecipeError
from prunekit.network import bind_network
from prunekit.registry import Registry
from prunekit_mir_l import networks as networks
from prunekit_mir_l.promptir import PromptIR


def test_timm_and_prunekit_know_the_networks() -> None:
    names = ("promptir", "promptir_small", "promptir_tiny")
    assert set(names) <= set(timm.list_models("promptir*"))
    assert set(names) <= set(Registry.discover().names("network"))


def test_timm_builds_them_with_options() -> None:
    model = timm.create_model("promptir_tiny", prompts=3)
    assert isinstance(model, PromptIR)
    assert model.prompt1.prompt_param.shape[1] == 3


@pytest.mark.parametrize(("name", "count"), [("promptir_small", 5_496_425), ("promptir_tiny", 616_986)])
def test_sizes(name: str, count: int) -> None:
    assert sum(parameter.numel() for parameter in bind_network(name)().parameters()) == count
    assert sum(parameter.numel() for parameter in timm.create_model(name).parameters()) == count


def test_options_are_checked_by_name() -> None:
    assert bind_network({"name": "promptir_tiny", "prompts": 3})().prompt1.prompt_param.shape[1] == 3  # type: ignore[union-attr]
    with pytest.raises(RecipeError, match=r"network has no option 'promts': did you mean 'prompts'\?"):
        bind_network({"name": "promptir_tiny", "promts": 3})


def test_tiny_restores_the_shape_and_the_seed_decides() -> None:
    outputs = []
    for _ in range(2):
        torch.manual_seed(7)
        outputs.append(bind_network("promptir_tiny")()(torch.full((1, 3, 16, 24), 0.5)))
    assert outputs[0].shape == (1, 3, 16, 24)
    assert torch.equal(*outputs)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"no network 'promptir_tyni': did you mean 'promptir_tiny'\?"):
        bind_network("promptir_tyni")


def test_pretrained_weights_are_refused_with_the_way_to_load_them() -> None:
    with pytest.raises(RecipeError, match="load_weights"):
        timm.create_model("promptir_tiny", pretrained=True)


@pytest.mark.slow
def test_the_network_itself_does_not_import_timm() -> None:
    code = "import sys, prunekit_mir_l.promptir; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
