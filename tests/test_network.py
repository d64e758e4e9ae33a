"""Networks by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from prunekit.errors import CheckpointError, PluginError, PruneKitError, RecipeError
from prunekit.network import bind_network, build_bounded, is_foreign


class Blocks(nn.Module):
    def __init__(self, *, blocks: int = 2, width: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(*(nn.Linear(width, width) for _ in range(blocks)))


OWN = "python:test_network:Blocks"


def test_a_name_with_options_builds_a_fresh_network_each_time() -> None:
    factory = bind_network({"name": OWN, "blocks": 3})
    first, second = factory(), factory()
    assert len(first.body) == 3 and first is not second  # type: ignore[arg-type]


def test_a_factory_is_a_name_too() -> None:
    assert isinstance(bind_network(lambda: nn.Linear(1, 1))(), nn.Linear)


def test_all_options_are_noted_with_their_defaults() -> None:
    assert bind_network(OWN).tree == {"name": OWN, "blocks": 2, "width": 4}  # type: ignore[attr-defined]


def test_timm_models_have_a_name() -> None:
    model = bind_network({"name": "timm:resnet10t", "num_classes": 3})().eval()
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_a_task_is_a_network() -> None:
    model = bind_network({"name": "task:python:toy:toy", "dropout": 0.0, "double": True})()
    assert next(model.parameters()).dtype == torch.float64


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        ("promptir_tyni", RecipeError, "no network 'promptir_tyni': did you mean 'promptir_tiny'"),
        ("timm:resnet19", PluginError, "timm.models has no 'resnet19'; did you mean 'resnet1"),
        ({"name": OWN, "width": 4, "block": 3}, RecipeError, "network has no option 'block': did you mean 'blocks'"),
        ({"name": OWN, "width": "wide"}, RecipeError, "network.width"),
        ({"name": "timm:resnet10t", "widht": 3}, RecipeError, "'timm:resnet10t' cannot be built with these options"),
        ("python:test_network:OWN", RecipeError, "names a str; give a function or a class"),
        ("python:builtins:dict", RecipeError, "'python:builtins:dict' says nothing of its options"),
        ("python:random:Random", RecipeError, "'python:random:Random' makes a Random, not a torch.nn.Module"),
        ("python:no_such_module:net", PluginError, "could not be imported"),
    ],
)
def test_mistakes_name_the_cause(network: Any, error: type[PruneKitError], message: str) -> None:
    with pytest.raises(error, match=message):
        bind_network(network)()


@pytest.mark.parametrize(
    ("spec", "foreign"),
    [
        ({"name": "promptir"}, False),
        ({"name": "timm:resnet18", "pretrained": False}, False),
        ({"name": "timm:resnet18", "pretrained": True}, True),
        ({"name": "timm:resnet18", "pretrained_cfg": {"url": "x"}}, True),
        ({"name": OWN}, True),
        ({"name": f"task:{OWN}"}, True),
        ({"name": "task:mir_l", "network": {"name": OWN}}, True),
        ({"name": "promptir", "blocks": [1, {"a": [OWN]}]}, True),
    ],
)
def test_what_a_file_may_not_ask_for(spec: dict[str, Any], foreign: bool) -> None:
    assert is_foreign(spec) == foreign


def test_bounded_building_gives_the_network_and_leaves_the_random_state() -> None:
    state = torch.get_rng_state()
    model = build_bounded(OWN, parameters=4, entries=40)
    assert next(model.parameters()).device.type == "cpu"
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("options", [{"blocks": 10**9}, {"width": 10**7}, {"blocks": 3}])
def test_bounded_building_gives_up_before_it_is_too_large(options: dict[str, int]) -> None:
    with pytest.raises(CheckpointError, match="far larger than what the file holds"):
        build_bounded({"name": OWN, **options}, parameters=4, entries=40)
    assert len(nn.Sequential(*(nn.Linear(1, 1) for _ in range(9)))) == 9  # the bound is gone
