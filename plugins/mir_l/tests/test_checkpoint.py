"""Checkpoints: every layout that loads, and what is refused, with the model unchanged."""

from __future__ import annotations

import argparse
import copy
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from prunekit.errors import CheckpointError
from prunekit.weights import load_weights
from prunekit_mir_l.promptir import PromptIR


def tiny(width: int = 4, depth: int = 1) -> PromptIR:
    return PromptIR(
        width=width,
        blocks=(depth, 1, 1, 1),
        refinement=1,
        heads=(1, 1, 1, 1),
        prompt_heads=1,
        prompt_channels=(2, 2, 2),
        prompt_sizes=(2, 2, 2),
    )


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def save(layout: str, state: dict[str, Tensor], path: Path) -> None:
    if layout == "safetensors":
        save_file(state, path)
    elif layout == "lightning":
        optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 2e-4, "betas": (0.9, 0.999)}]}
        torch.save(
            {
                "epoch": 3,
                "state_dict": prefixed("net.", state),
                "optimizer_states": [optimizer],
                "hyper_parameters": {"lr": 2e-4},
            },
            path,
        )
    else:
        torch.save(
            prefixed({"bare": "", "parallel": "module.net."}.get(layout, ""), state),
            path,
            _use_new_zipfile_serialization=layout != "legacy",
        )


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("bare", "w.pt"),
        ("legacy", "w.pth"),
        ("parallel", "w.pth"),
        ("lightning", "w.ckpt"),
        ("safetensors", "w.safetensors"),
    ],
)
def test_every_layout_loads(tmp_path: Path, layout: str, name: str) -> None:
    source, target = tiny(), tiny()
    save(layout, source.state_dict(), tmp_path / name)
    load_weights(target, tmp_path / name)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_a_prefix_that_belongs_to_the_network_stays(tmp_path: Path) -> None:
    model = nn.ModuleDict({"net": nn.Linear(1, 1)})
    torch.save({"net.weight": torch.full((1, 1), 5.0), "net.bias": torch.zeros(1)}, tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    assert model["net"].weight.item() == 5


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("open('bomb-went-off', 'w')",)


def refused(path: Path) -> str:
    model = nn.Linear(2, 1)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError) as error:
        load_weights(model, path)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("protocol", [None, 2, 4])
def test_a_pickle_that_runs_code_is_refused_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int | None
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.ckpt"
    content = {"state_dict": nn.Linear(2, 1).state_dict(), "extra": Bomb()}
    if protocol is None:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"extra": Bomb()}, protocol=protocol))
    message = refused(path)
    assert "refused" in message
    assert "Nothing was run" in message
    assert not (tmp_path / "bomb-went-off").exists()


def test_a_harmless_object_is_named_with_the_way_out(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "hyper_parameters": argparse.Namespace(lr=1)}, tmp_path / "w.ckpt")
    message = refused(tmp_path / "w.ckpt")
    assert "argparse.Namespace" in message
    assert ".safetensors" in message


@pytest.mark.parametrize("layout", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_named_as_such(tmp_path: Path, layout: str, share: float) -> None:
    path = tmp_path / ("w.safetensors" if layout == "safetensors" else "w.pt")
    save(layout, nn.Linear(2, 1).state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "truncated" in refused(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds no weights"),
        ({"epoch": 3}, "holds epoch"),
        ({}, "holds nothing"),
        ({"state_dict": {}}, "holds state_dict"),
    ],
)
def test_a_file_without_weights_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    assert message in refused(tmp_path / "w.pt")


def test_a_web_page_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_text("<html>not found</html>")
    assert "not a file that torch.save wrote" in refused(tmp_path / "w.pt")
    assert "no such file" in refused(tmp_path / "absent.pt")
    assert "no such file" in refused(tmp_path)


def mismatch(tmp_path: Path, state: dict[str, Tensor]) -> str:
    torch.save(state, tmp_path / "w.pt")
    model = tiny()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError) as error:
        load_weights(model, tmp_path / "w.pt")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    return str(error.value)


def test_another_network_is_told_apart_from_another_size(tmp_path: Path) -> None:
    foreign = mismatch(tmp_path, nn.Linear(2, 1).state_dict())
    assert "2 unexpected: weight, bias." in foreign
    assert "a checkpoint of another network: build" in foreign
    wider = mismatch(tmp_path, tiny(width=8).state_dict())
    assert "patch_embed.proj.weight (file [8, 3, 3, 3], network [4, 3, 3, 3])" in wider
    assert "at another size" in wider
    deeper = mismatch(tmp_path, tiny(depth=2).state_dict())
    assert "unexpected: encoder_level1.1.norm1.body.weight" in deeper
    assert "of another depth" in deeper
