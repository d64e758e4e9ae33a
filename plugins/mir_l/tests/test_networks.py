"""The registered networks."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch

from prunekit.errors import RecipeError
from prunekit_mir_l.networks import NAMES, build
from prunekit_mir_l.promptir import PromptIR


def test_timm_knows_the_networks() -> None:
    assert set(NAMES) <= set(timm.list_models("promptir*"))
    assert NAMES == ("promptir", "promptir_small", "promptir_tiny")


def test_timm_builds_them_with_options() -> None:
    model = timm.create_model("promptir_tiny", prompts=3)
    assert isinstance(model, PromptIR)
    assert model.prompt1.prompt_param.shape[1] == 3


@pytest.mark.parametrize(("name", "least", "most"), [("promptir_small", 2e6, 6e6), ("promptir_tiny", 1e5, 7e5)])
def test_sizes(name: str, least: float, most: float) -> None:
    assert least < sum(parameter.numel() for parameter in build(name).parameters()) < most


def test_tiny_restores_the_shape_and_the_seed_decides() -> None:
    outputs = []
    for _ in range(2):
        torch.manual_seed(7)
        outputs.append(build("promptir_tiny")(torch.full((1, 3, 16, 24), 0.5)))
    assert outputs[0].shape == (1, 3, 16, 24)
    assert torch.equal(*outputs)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"no network 'promptir_tyni': did you mean 'promptir_tiny'\?"):
        build("promptir_tyni")


def test_pretrained_weights_are_refused_with_the_way_to_load_them() -> None:
    with pytest.raises(RecipeError, match="load_weights"):
        timm.create_model("promptir_tiny", pretrained=True)


def test_the_network_itself_does_not_import_timm() -> None:
    code = "import sys, prunekit_mir_l.promptir; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
