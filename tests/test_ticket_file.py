"""Tickets on disk: identical tensors back, small, and nothing bad from a stranger's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

import prunekit as pk
from prunekit.errors import CheckpointError, MaskError
from prunekit.sparse.export import export_dense
from prunekit.sparse.ticket import About, Ticket
from prunekit.sparse.ticket_file import read_ticket, save_ticket
from prunekit.task import Mean


class Mixed(nn.Module):
    """Tensors of many kinds: convolutions, a norm's buffers, a tied weight, a scalar, an empty one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 4, 1))
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("steps", torch.tensor([1, 2**40]))


def pruned(model: nn.Module, density: float = 0.3) -> pk.Masks:
    masks = pk.prune(model, pk.Masks.dense(model), density)
    masks.apply_(model)
    return masks


def same(a: Ticket, b: Ticket) -> bool:
    return list(a.tensors) == list(b.tensors) and a.masks == b.masks and all(_same(a, b, name) for name in a.tensors)


def _same(a: Ticket, b: Ticket, name: str) -> bool:
    return a.tensors[name].dtype == b.tensors[name].dtype and torch.equal(a.tensors[name], b.tensors[name])


def test_any_module_comes_back_identical_without_a_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Mixed()
    masks = pruned(model)
    pk.save(model, masks, tmp_path / "t.safetensors")
    ticket = pk.load(tmp_path / "t.safetensors")
    assert ticket.masks == masks and list(ticket.masks) == list(masks)
    assert list(ticket.tensors) == list(pk.snapshot(model))
    torch.manual_seed(1)
    other = Mixed()
    pk.restore(other, ticket.tensors)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@given(
    st.lists(st.integers(0, 4), min_size=0, max_size=4), st.floats(0, 1), st.sampled_from(range(4)), st.integers(0, 9)
)
@settings(max_examples=60, deadline=None)
def test_every_shape_density_and_type_round_trips(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], density: float, kind: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    dtype = (torch.float32, torch.float64, torch.float16, torch.bfloat16)[kind]
    mask = torch.rand(shape, generator=generator) < density
    tensor = torch.randn(shape, generator=generator).to(dtype) * mask
    tensor[mask & (torch.rand(shape, generator=generator) < 0.1)] = float("inf")
    ticket = Ticket({"w": tensor, "other": torch.ones(2)}, pk.Masks({"w": mask}), About())
    path = tmp_path_factory.mktemp("t") / "t.safetensors"
    save_ticket(ticket, path)
    assert same(ticket, read_ticket(path))


def test_the_size_is_a_bit_a_weight_and_the_survivors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(1000, 1000, bias=False)
    masks = pruned(model, 0.1)
    pk.save(model, masks, tmp_path / "t.safetensors")
    pk.save(model, masks, tmp_path / "h.safetensors", dtype=torch.float16)
    payload, half = 100_000 * 4 + 125_000, 100_000 * 2 + 125_000
    assert payload < (tmp_path / "t.safetensors").stat().st_size < payload + 1500
    assert half < (tmp_path / "h.safetensors").stat().st_size < half + 1500


def test_measures_that_are_no_numbers_survive(tmp_path: Path) -> None:
    mean = Mean("denoise", "set", "psnr", float("inf"), 3, None, True, "rgb")
    ticket = Ticket({"w": torch.ones(2)}, pk.Masks({"w": torch.ones(2, dtype=torch.bool)}), About(measures=[mean]))
    save_ticket(ticket, tmp_path / "t")
    assert read_ticket(tmp_path / "t").about.measures == [mean]


def test_equal_tickets_give_equal_bytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Mixed()
    masks = pruned(model)
    for name in "ab":
        pk.save(model, masks, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_half_precision_rounds_to_nearest_and_keeps_the_masks(tmp_path: Path) -> None:
    model = nn.Linear(4, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1 / 3, 0.0, 1e-9, 2.0]]))
    masks = pk.Masks({"weight": torch.tensor([[True, False, True, True]])})
    pk.save(model, masks, tmp_path / "t", dtype=torch.float16)
    ticket = pk.load(tmp_path / "t")
    assert ticket.tensors["weight"].tolist() == [[0.333251953125, 0.0, 0.0, 2.0]]
    assert ticket.tensors["weight"].dtype == torch.float32
    assert ticket.masks == masks  # a weight that rounds to zero is still kept


def test_what_does_not_fit_half_precision_is_refused_by_name(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1e5, 1.0]]))
    with pytest.raises(CheckpointError, match=r"'weight' holds 1e\+05, more than torch.float16 can; use bfloat16"):
        pk.save(model, pk.Masks.dense(model), tmp_path / "t", dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("mine")
    model = nn.Linear(2, 1)
    with pytest.raises(CheckpointError, match="exists already and is left as it is"):
        pk.save(model, pk.Masks.dense(model), tmp_path / "t")
    assert (tmp_path / "t").read_text() == "mine"


def test_a_model_that_does_not_obey_its_masks_is_refused(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    masks = pk.Masks({"weight": torch.tensor([[True, False]])})
    with pytest.raises(MaskError, match="1 weights of 'weight' that the masks cut are not zero: call masks.apply_"):
        pk.save(model, masks, tmp_path / "t")


class Stateful(nn.Linear):
    def get_extra_state(self) -> object:
        return {"count": 3}

    def set_extra_state(self, state: object) -> None:
        pass


class Hidden(nn.Linear):
    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {name: t for name, t in super().state_dict(*args, **kwargs).items() if name != "weight"}


def colliding() -> nn.Module:
    model = nn.Linear(2, 2)
    model.register_buffer("t", torch.zeros(1))
    model.module = nn.Module()
    model.module.register_buffer("t", torch.ones(1))
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Stateful(2, 2), "'_extra_state', which is no parameter or buffer: a ticket file cannot hold that"),
        (Hidden(2, 2), "keeps its parameter 'weight' out of its state_dict"),
        (nn.Linear(2, 2, device="meta"), "is a meta tensor"),
        (colliding(), "both called 't' once 'module.'"),
    ],
)
def test_state_that_no_file_could_hold_is_refused_by_name(tmp_path: Path, model: nn.Module, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        pk.save(model, pk.Masks({}), tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, torch.float32])
def test_other_types_than_the_two_halves_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    with pytest.raises(CheckpointError, match="can be stored as torch.float16 or torch.bfloat16"):
        pk.save(nn.Linear(2, 2), pk.Masks({}), tmp_path / "t", dtype=dtype)


class Types(nn.Module):
    """Types side by side, and a complex buffer that no file holds."""

    def __init__(self) -> None:
        super().__init__()
        self.half = nn.Linear(3, 3).bfloat16()
        self.wide = nn.Linear(3, 3).double()
        self.register_buffer("turn", torch.polar(torch.ones(3), torch.arange(3.0)), persistent=False)


def test_a_model_of_several_types_is_built_again_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Types()
    spec = {"name": "python:test_ticket_file:Types"}
    pk.save(model, pk.Masks.dense(model), tmp_path / "t", network=spec)
    built = pk.load(tmp_path / "t", network=spec).model()
    for name, tensor in [*model.state_dict().items(), ("turn", model.turn)]:
        found = dict(built.named_buffers()).get(name, built.state_dict().get(name))
        assert found is not None and found.dtype == tensor.dtype and torch.equal(found, tensor), name


class Repeat(nn.Module):
    """Many layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3, bias=False) for _ in range(50))
        for layer in self.layers:
            layer.weight = self.layers[0].weight


def test_tied_layers_are_stored_once_and_written_out_for_others(tmp_path: Path) -> None:
    model, spec = Repeat(), {"name": "python:test_ticket_file:Repeat"}
    pk.save(model, pk.Masks.dense(model), tmp_path / "t", network=spec)
    ticket = pk.load(tmp_path / "t", network=spec)
    assert list(ticket.tensors) == ["layers.0.weight"]
    built = ticket.model()
    assert built.layers[49].weight is built.layers[0].weight
    export_dense(ticket, tmp_path / "dense")
    Repeat().load_state_dict(load_file(tmp_path / "dense"))
    with pytest.raises(CheckpointError, match="more than torch.float16 can"):
        large = pk.Ticket({"w": torch.full((2,), 1e6)}, pk.Masks({}), About())
        export_dense(large, tmp_path / "half", dtype=torch.float16)
