"""Networks by name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn

from prunekit.errors import CheckpointError, PluginError, PruneKitError, RecipeError
from prunekit.network import bind_network, build_bounded, is_harmless


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
        ("timm:resnet19", RecipeError, "timm has no model 'resnet19': did you mean 'resnet1"),
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
    "spec",
    [
        {"name": "promptir"},
        {"name": "promptir", "blocks": [1, 2, 3], "unused": False, "width": 24},
        {"name": "timm:resnet18", "pretrained": False, "act_layer": "silu", "drop_rate": 0.1},
    ],
)
def test_what_a_file_may_ask_for(spec: dict[str, Any]) -> None:
    assert is_harmless(spec)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"name": 5},
        {"name": OWN},
        {"name": f"task:{OWN}"},
        {"name": "task:mir_l", "data": "/etc"},
        {"name": "timm:hf-hub:someone/something"},
        {"name": "timm:resnet18", "pretrained": True},
        {"name": "timm:resnet18", "pretrained_cfg": {"url": "x"}},
        {"name": "timm:resnet18", "cache_dir": "x"},
        {"name": "promptir", "scorer": {"name": "ticket", "masks": "/etc/passwd"}},
        {"name": "promptir", "scorer": "ticket"},
        {"name": "promptir", "file": "../../weights.pt"},
        {"name": "promptir", "blocks": [[[1]]]},
        {"name": "promptir", "width": 10**9},
        {"name": "promptir", "width": float("inf")},
    ],
)
def test_what_a_file_may_not_ask_for(spec: dict[str, Any]) -> None:
    assert not is_harmless(spec)


@pytest.mark.parametrize("name", ["load_state_dict_from_hf", "create_model", "hf-hub:a/b", "is_model"])
def test_only_models_of_timm_go_by_a_name(name: str) -> None:
    with pytest.raises(RecipeError, match="timm has no model"):
        bind_network({"name": f"timm:{name}", "model_id": "a/b", "model_name": "a"})


def test_parts_are_looked_up_only_where_the_factory_takes_them() -> None:
    with pytest.raises(RecipeError, match="network has no option 'scorer'"):
        bind_network({"name": OWN, "scorer": {"name": "ticket", "masks": "/etc/passwd"}})


def test_options_fit_in_a_text() -> None:
    assert len(bind_network(f"{{name: '{OWN}', blocks: 3}}")().body) == 3  # type: ignore[arg-type]
    for text in ("{width: 3}", "{name: [", "{name: 5}"):
        with pytest.raises(RecipeError, match="names no network: give a name, or a name with options as"):
            bind_network(text)


def test_bounded_building_gives_the_network_and_leaves_the_random_state() -> None:
    state = torch.get_rng_state()
    model = build_bounded(OWN, tensors=4, entries=40)
    assert next(model.parameters()).device.type == "cpu"
    assert torch.equal(torch.get_rng_state(), state)


class Buffered(nn.Module):
    def __init__(self, *, size: int = 3) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(size, size), persistent=False)


class Unmeasurable(nn.Linear):
    def __init__(self) -> None:
        super().__init__(int(torch.ones(1).item()), 1)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": OWN, "blocks": 10**9},
        {"name": OWN, "width": 10**7},
        {"name": OWN, "blocks": 3},
        {"name": "python:test_network:Buffered", "size": 10**8},
    ],
)
def test_bounded_building_gives_up_before_it_is_too_large(spec: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="far larger than what the file holds"):
        build_bounded(spec, tensors=4, entries=40)
    assert len(nn.Sequential(*(nn.Linear(1, 1) for _ in range(9)))) == 9  # the bound is gone


def test_what_cannot_be_measured_is_not_built() -> None:
    with pytest.raises(CheckpointError, match="cannot be measured before it is built.*name the network yourself"):
        build_bounded("python:test_network:Unmeasurable", tensors=4, entries=40)


def test_other_threads_build_what_they_like_meanwhile() -> None:
    def elsewhere() -> nn.Module:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(nn.Linear, 100, 100, device="cpu").result()
        return nn.Linear(2, 2)

    assert isinstance(build_bounded(elsewhere, tensors=4, entries=40), nn.Linear)
