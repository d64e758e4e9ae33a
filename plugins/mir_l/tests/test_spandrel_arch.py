"""PromptIR in spandrel's registry: published checkpoints are recognised, at any size."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from spandrel import MAIN_REGISTRY, Architecture, ArchRegistry, ArchSupport, ModelLoader
from torch import nn

from prunekit.network import bind_network
from prunekit_mir_l.promptir import PromptIR
from prunekit_mir_l.spandrel_arch import bare, options_of, register_spandrel

SHAPES = json.loads((Path(__file__).parent / "fixtures" / "promptir_state_dict.json").read_text())


@pytest.fixture
def registry() -> ArchRegistry:
    copy = MAIN_REGISTRY.copy()
    register_spandrel(copy)
    return copy


def test_the_published_sizes_are_read_from_the_published_shapes() -> None:
    state = {name: torch.empty(shape, device="meta") for name, shape in SHAPES.items()}
    defaults = {name: each.default for name, each in inspect.signature(PromptIR).parameters.items()}
    read = {name: tuple(value) if isinstance(value, list) else value for name, value in options_of(state).items()}
    assert read == defaults


@pytest.mark.parametrize(
    "options", [{}, {"unused": True, "prompts": 3, "blocks": [2, 1, 0, 1], "refinement": 2, "heads": [3, 4, 1, 2]}]
)
@pytest.mark.parametrize("prefix", ["", "net."])
def test_a_checkpoint_is_recognised_and_restores_images(
    registry: ArchRegistry, tmp_path: Path, options: dict[str, Any], prefix: str
) -> None:
    model = bind_network({"name": "promptir_tiny", **options})().eval()
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "published.ckpt")
    found = ModelLoader(registry=registry).load_from_file(tmp_path / "published.ckpt")
    assert (found.architecture.id, found.tags) == ("PromptIR", ["12w"])
    assert isinstance(found.model, PromptIR)
    image = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        assert torch.equal(found.model.eval()(image), model(image))
        assert found(torch.rand(1, 3, 13, 21)).shape == (1, 3, 13, 21)  # type: ignore[operator]


def test_a_recipe_names_a_published_file_and_gets_its_network(tmp_path: Path) -> None:
    model = bind_network({"name": "promptir_tiny", "prompts": 3})()
    torch.save({f"net.{name}": each for name, each in model.state_dict().items()}, tmp_path / "published.pth")
    found = bind_network(f"spandrel:{tmp_path / 'published.pth'}")()
    assert isinstance(found, PromptIR)
    assert all(torch.equal(each, found.state_dict()[name]) for name, each in model.state_dict().items())


class Restormer(Architecture[nn.Linear]):
    """Claims whatever has a patch embedding, as the real one does."""

    def __init__(self) -> None:
        super().__init__(id="Restormer", detect=lambda state: "patch_embed.proj.weight" in state)

    def load(self, state_dict: Any) -> Any:
        raise AssertionError("PromptIR was taken for Restormer")


@pytest.mark.parametrize("later", [True, False])
def test_it_comes_before_restormer_whoever_registers_first(later: bool) -> None:
    registry = ArchRegistry()
    steps = [lambda: registry.add(ArchSupport.from_architecture(Restormer())), lambda: register_spandrel(registry)]
    for step in reversed(steps) if later else steps:
        step()
    register_spandrel(registry)
    assert [each.architecture.id for each in registry.architectures("detection")] == ["PromptIR", "Restormer"]
    assert isinstance(registry.load(bind_network("promptir_tiny")().state_dict()).model, PromptIR)


def test_other_networks_stay_what_they_are(registry: ArchRegistry) -> None:
    state = bind_network(
        {"name": "spandrel:NAFNet", "width": 4, "enc_blk_nums": [1], "dec_blk_nums": [1]}
    )().state_dict()
    assert registry.load(state).architecture.id == "NAFNet"
    assert bare(state).keys() == state.keys()
