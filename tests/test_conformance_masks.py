"""Five rounds of the published algorithm (arXiv 2510.14463) on a small network: bit-equal masks and rewound weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from prunekit.allocate import Allocation, everywhere, per_layer
from prunekit.amount import Rate
from prunekit.masks import Masks
from prunekit.pruner import prune
from prunekit.rewind import restore, snapshot

FIXTURES = Path(__file__).parent / "fixtures"
MODES: dict[str, Allocation] = {"global": everywhere(), "layerwise": per_layer(rates={"output.weight": 0.5})}


def network(state: dict[str, Tensor]) -> nn.Module:
    """A model with these parameters and no forward pass: pruning asks for no more."""
    model = nn.Module()
    for name, tensor in state.items():
        owner, _, leaf = name.rpartition(".")
        if owner and not hasattr(model, owner):
            model.add_module(owner, nn.Module())
        model.get_submodule(owner).register_parameter(leaf, nn.Parameter(tensor.clone()))
    return model


def part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


@pytest.mark.parametrize("mode", MODES)
def test_five_rounds(mode: str) -> None:
    state = load_file(FIXTURES / f"mirl_prune_{mode}.safetensors")
    model = network(part(state, "init."))
    start, masks = snapshot(model), Masks.dense(model, include=["*weight*"])
    for number in range(1, 6):
        model.load_state_dict(part(state, f"round{number}.trained."))
        masks = prune(model, masks, Rate(0.2), allocation=MODES[mode])
        expected = part(state, f"round{number}.mask.")
        assert masks == Masks({name: mask.bool() for name, mask in expected.items()})
        assert expected.keys() == {"body.weight", "mix.weight", "norm.weight", "output.weight"}
        restore(model, start, masks, keep=["temperature"])
        rewound = part(state, f"round{number}.rewound.")
        assert rewound.keys() == model.state_dict().keys()
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor.detach(), rewound[name]), f"round {number}: {name}"
    assert masks.kept == {"global": 257, "layerwise": 366}[mode]
