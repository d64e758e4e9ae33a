"""Ticket files from strangers: damaged, altered, forged; each is named, and none does harm."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_ticket_file import pruned, same
from torch import nn

import prunekit as pk
from prunekit.errors import CheckpointError, PruneKitError
from prunekit.sparse.ticket_file import read_ticket


def altered(path: Path, change: Any, *, sign: bool = True) -> Path:
    """Rewrite a ticket with its description or tensors changed; signed anew unless told otherwise."""
    from safetensors import safe_open

    from prunekit.sparse import ticket_file

    with safe_open(path, framework="pt") as file:
        checksum, _, text = file.metadata()["prunekit"].partition(" ")
        tree = json.loads(text)
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118  (not a dict)
    change(tree, tensors)
    text = json.dumps(tree)
    if sign:
        checksum = ticket_file._digest(text, tensors)
    out = path.with_name("altered")
    out.unlink(missing_ok=True)
    save_file(tensors, out, metadata={"prunekit": f"{checksum} {text}"})
    return out


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7))
    pk.save(model, pruned(model, 0.4), tmp_path / "t.safetensors")
    return tmp_path / "t.safetensors"


def _tensor(key: str, value: torch.Tensor) -> Any:
    return lambda tree, tensors: tensors.__setitem__(key, value)


def _place(index: int, **changes: Any) -> Any:
    return lambda tree, tensors: tree["places"][index].update(changes)


@pytest.mark.parametrize(
    "change",
    [
        _place(0, shape=[7, 6]),
        _place(0, shape=[10**15, 10**15]),
        _place(0, shape=[-7, -5]),
        _place(0, shape=[0, 2**63]),
        _place(0, shape=[1] * 65),
        _place(0, name="1.weight"),
        _place(0, packed=False),
        _place(0, prunable=False),
        _place(0, dtype="object"),
        _place(1, prunable="yes"),
        _place(1, shape=[8]),
        _tensor("values/0.weight", torch.ones(13)),
        _tensor("values/0.weight", torch.ones(14, 1)),
        _tensor("bits/0.weight", torch.full((5,), 255, dtype=torch.uint8)),
        _tensor("bits/0.weight", torch.ones(5)),
        _tensor("extra", torch.ones(1)),
        lambda tree, tensors: tensors.pop("dense/0.bias"),
        lambda tree, tensors: tree["places"].pop(),
        lambda tree, tensors: tree["places"].append(tree["places"][0]),
        lambda tree, tensors: tree.update(format="prunekit ticket 2"),
        lambda tree, tensors: tree["about"].update(command="rm"),
        lambda tree, tensors: tree.pop("places"),
    ],
)
def test_a_forged_description_is_refused_though_its_checksum_is_right(file: Path, change: Any) -> None:
    with pytest.raises(CheckpointError, match="altered is truncated, altered, or no ticket"):
        read_ticket(altered(file, change))
    assert read_ticket(altered(file, lambda tree, tensors: None)).masks.kept == 14


def test_a_changed_value_is_found_by_the_checksum(file: Path) -> None:
    changed = altered(file, lambda tree, tensors: tensors["values/0.weight"][3].add_(1), sign=False)
    with pytest.raises(CheckpointError, match=r"altered since it was written \(its checksum differs\)"):
        read_ticket(changed)


def test_files_that_are_no_tickets(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match="a safetensors file and no ticket.*--network NAME"):
        read_ticket(tmp_path / "plain.safetensors")
    torch.save({"weight": torch.ones(2)}, tmp_path / "net.pt")
    with pytest.raises(
        CheckpointError,
        match="net.pt is no ticket but a file of PyTorch.s: name the network of these weights with --network NAME",
    ):
        read_ticket(tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="there is no such file"):
        read_ticket(tmp_path / "none")


def mutated(original: bytes, seed: int) -> bytes:
    """Cut, flip, overwrite, insert, remove or repeat somewhere: half of the time in the header, where it hurts."""
    rng = random.Random(seed)
    data = bytearray(original)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        header = 8 + int.from_bytes(original[:8], "little")
        at = rng.randrange(min(header, len(data)) if rng.random() < 0.5 else len(data)) if data else 0
        kind = rng.randrange(7)
        if kind == 0:
            del data[at:]
        elif kind == 1 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 2 and data:
            data[at] = rng.choice(b'09-e.,:[]{}"\x00\xff')
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 4:
            del data[at : at + rng.randrange(1, 9)]
        elif kind == 5:
            data[at:at] = data[at : at + rng.randrange(1, 200)]
        else:
            data[:8] = rng.choice([0, 1, 2**31, 2**63 - 1, 2**64 - 1, header, 99_999_999]).to_bytes(8, "little")
    return bytes(data)


def check_mutations(path: Path, seeds: range) -> int:
    """Return how many mutations were refused; every other one must load as the original does."""
    truth, original = read_ticket(path), path.read_bytes()
    refused = 0
    victim = path.with_name("mutated.safetensors")
    for seed in seeds:
        victim.write_bytes(mutated(original, seed))
        try:
            loaded = read_ticket(victim)
        except CheckpointError as error:
            assert "mutated.safetensors" in str(error), seed
            refused += 1
        else:
            assert same(loaded, truth), seed
    return refused


def test_mutated_files_are_named_or_harmless(file: Path) -> None:
    assert check_mutations(file, range(1000)) > 950


@pytest.mark.slow
def test_ten_thousand_mutated_files(file: Path) -> None:
    refused = check_mutations(file, range(1000, 11_000))
    assert 9500 < refused <= 10_000


def test_a_network_from_a_file_runs_no_code_of_its_author(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    spec = {"name": "python:torch.nn:Linear", "in_features": 3, "out_features": 2}
    pk.save(model, pk.Masks.dense(model), tmp_path / "t", network=spec)
    ticket = pk.load(tmp_path / "t")
    with pytest.raises(CheckpointError, match="nothing was run. If you trust it, name the network yourself"):
        ticket.model()
    vouched = pk.load(tmp_path / "t", network=spec).model()
    assert torch.equal(vouched.weight, model.weight)


def test_a_ticket_without_a_network_says_how_to_go_on(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    pk.save(model, pk.Masks.dense(model), tmp_path / "t")
    with pytest.raises(CheckpointError, match=r"prunekit.restore\(model, ticket.tensors\)"):
        pk.load(tmp_path / "t").model()


@pytest.mark.parametrize(
    "network",
    [
        {"name": "timm:load_state_dict_from_hf", "model_id": "evil/x", "weights_only": False},
        {"name": "timm:create_model", "model_name": "hf-hub:evil/x"},
        {"name": "timm:resnet18", "pretrained": True},
        {"name": "timm:resnet18", "checkpoint_path": "somewhere"},
        {"name": "timm:vit_giant_patch14_224"},
        {"name": "timm:vit_tiny_patch16_224", "depth": 50_000_000, "embed_dim": 3},
        {"name": "timm:vit_tiny_patch16_224", "patch_size": 0},
        {"name": "timm:resnet18", "factory": 1},
        {"name": "spandrel:../weights.pth"},
        {"name": "spandrel:NAFNet", "weights": "somewhere"},
        {"name": "spandrel:NAFNet", "width": 20_000},
        {"name": "promptir_tiny", "scorer": {"name": "ticket", "masks": "/etc/passwd"}},
        {"name": "promptir_tiny", "command": {"name": "mir_l", "args": ["--help"]}},
        {"name": "task:mir_l", "data": "/etc", "steps": 1},
        {"name": "promptir_tiny", "width": 2**20},
        {"name": "promptir_tiny", "width": 13},
        {"name": "nowhere"},
        {"width": 3},
        {"name": None},
        {},
    ],
)
def test_no_network_that_a_file_names_does_harm(file: Path, network: dict[str, Any]) -> None:
    forged = altered(file, lambda tree, tensors: tree["about"].update(network=network))
    with pytest.raises(PruneKitError):
        pk.load(forged).model()


@pytest.mark.parametrize(
    "about",
    [
        {"input_shape": []},
        {"input_shape": [1, -3]},
        {"input_shape": [1, 3, 40_000, 40_000]},
        {"input_shape": [1] * 100},
        {"input_dtype": "complex64"},
        {"network": "promptir"},
        {"attributes": {"0.out_features": 1.5}},
        {"stage": 5},
    ],
)
def test_no_description_that_makes_no_sense_is_taken(file: Path, about: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="altered is truncated, altered, or no ticket"):
        read_ticket(altered(file, lambda tree, tensors: tree["about"].update(about)))
