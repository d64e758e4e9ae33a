"""Masks as values: selection by name, exact zeros, packing, digests."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import distributed, nn

from prunekit.errors import CheckpointError, DataError, MaskError, SelectionError
from prunekit.masks import Masks
from prunekit.rewind import recalibrate, restore, snapshot
from prunekit.select import canonical, parameters, prunable


class Wrapper(nn.Module):
    """What DistributedDataParallel and torch.compile do to names."""

    def __init__(self, attribute: str, inner: nn.Module) -> None:
        super().__init__()
        self.add_module(attribute, inner)


class Net(nn.Module):
    """Each kind of parameter that selection has an opinion on."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.up = nn.ConvTranspose2d(4, 3, 2)
        self.head = nn.Linear(3, 2)
        self.prompt = nn.Parameter(torch.rand(1, 5))
        self.norm = nn.LayerNorm(2)


def cut(model: nn.Module, density: float = 0.5, seed: int = 0) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    return Masks({name: torch.rand(m.shape, generator=generator) < density for name, m in Masks.dense(model).items()})


# --- which parameters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("body.0.weight", "up.weight", "head.weight")),
        ({"types": ["Conv2d"]}, ("body.0.weight",)),
        ({"types": ["LayerNorm", "Linear"]}, ("head.weight", "norm.weight")),
        ({"types": ["_ConvNd"]}, ("body.0.weight", "up.weight")),
        ({"include": ["prompt", "norm.*"]}, ("prompt", "norm.weight", "norm.bias")),
        (
            {"include": ["*weight*"]},
            ("body.0.weight", "body.1.weight", "up.weight", "head.weight", "norm.weight"),
        ),
        ({"include": ["*"], "types": ["Linear"]}, ("head.weight", "head.bias")),
        ({"exclude": ["head.*"]}, ("body.0.weight", "up.weight")),
    ],
)
def test_prunable_chooses_in_model_order(options: dict[str, list[str]], expected: tuple[str, ...]) -> None:
    model = Net()
    order = list(parameters(model))
    assert prunable(model, **options) == tuple(sorted(expected, key=order.index))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": ["haed.weight"]}, "did you mean 'head.weight'"),
        ({"exclude": ["bodi.0.weight"]}, "did you mean 'body.0.weight'"),
        ({"types": ["Conv2D"]}, "did you mean 'Conv2d'"),
        ({"include": ["head.weight"], "types": ["Conv2d"]}, "'head.weight' matches no name"),
        ({"exclude": ["*"]}, "no parameter is left to prune"),
    ],
)
def test_an_entry_that_matches_nothing_is_an_error(options: dict[str, list[str]], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        prunable(Net(), **options)


def test_tied_parameters_appear_once_and_count_as_what_they_are_tied_to() -> None:
    model = nn.Sequential()
    model.embed = nn.Embedding(7, 3)
    model.head = nn.Linear(3, 7, bias=False)
    model.head.weight = model.embed.weight
    assert prunable(model) == ("embed.weight",)
    assert list(snapshot(model)) == ["embed.weight"]


def test_wrapper_prefixes_are_stripped_anywhere() -> None:
    assert canonical("module._orig_mod.a.module.b._orig_mod.weight") == "a.b.weight"
    bare = nn.Sequential(nn.Linear(3, 2))
    wrapped = Wrapper("module", Wrapper("_orig_mod", bare))
    assert prunable(wrapped) == prunable(bare) == ("0.weight",)
    masks = cut(bare)
    masks.apply_(wrapped)
    assert torch.equal(bare[0].weight != 0, masks["0.weight"])
    restore(wrapped, snapshot(bare), masks)
    clash = nn.Sequential()
    clash.weight = nn.Parameter(torch.zeros(1))
    clash.module = nn.Linear(1, 1, bias=False)
    with pytest.raises(SelectionError, match="both called 'weight'"):
        parameters(clash)


def test_sharded_parameters_are_refused() -> None:
    from torch.distributed.tensor import DTensor, Replicate, init_device_mesh

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        model = nn.Linear(4, 2)
        masks, mesh = Masks.dense(model), init_device_mesh("cpu", (1,))
        model.weight = nn.Parameter(DTensor.from_local(model.weight.detach(), mesh, [Replicate()]))
        for refused in (lambda: Masks.dense(model), lambda: masks.apply_(model)):
            with pytest.raises(SelectionError, match=r"'weight' is sharded over processes \(FSDP"):
                refused()
    finally:
        distributed.destroy_process_group()


# --- the value ----------------------------------------------------------------------------------------------------


def test_counts() -> None:
    masks = Masks({"a": torch.tensor([[True, False], [False, False]]), "b": torch.zeros(3, dtype=torch.bool)})
    assert (masks.kept, masks.prunable, masks.density) == (1, 7, 1 / 7)
    assert masks.per_tensor() == {"a": (1, 4), "b": (0, 3)}
    assert masks.emptied() == ("b",)
    dense = Masks.dense(Net(), types=["Linear"])
    assert (dense.kept, dense.prunable, list(dense)) == (6, 6, ["head.weight"])


def test_masks_are_bool_tensors_on_the_cpu() -> None:
    with pytest.raises(MaskError, match="'a' must be a bool tensor"):
        Masks({"a": torch.ones(3)})


def test_equality_and_digest_see_names_shapes_and_bits() -> None:
    bits = torch.tensor([True, False, True, True])
    one = Masks({"a": bits, "b": ~bits})
    assert one == Masks({"b": ~bits, "a": bits}) and one.digest() == Masks({"b": ~bits, "a": bits}).digest()
    others = [{"a": bits, "c": ~bits}, {"a": bits.view(2, 2), "b": ~bits}, {"a": bits, "b": bits}, {"a": bits}]
    for other in others:
        assert one != Masks(other) and one.digest() != Masks(other).digest()
    assert one.digest() == "133bb1bea6cf49f9"  # stable across versions: ranks and files compare it


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_apply_writes_zeros_over_infinities_and_nan_and_nothing_else(dtype: torch.dtype) -> None:
    model = nn.Linear(5, 1, bias=False).to(dtype)
    values = torch.tensor([[torch.inf, torch.nan, -1.5, torch.inf, -0.0]], dtype=dtype)
    with torch.no_grad():
        model.weight.copy_(values)
    Masks({"weight": torch.tensor([[False, False, False, True, True]])}).apply_(model)
    assert model.weight.tolist() == [[0, 0, 0, torch.inf, 0]]
    assert torch.signbit(model.weight).tolist() == [[False, False, False, False, True]]
    assert model.weight.requires_grad and model.weight.dtype == dtype


def test_apply_copes_with_channels_last() -> None:
    model = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    masks = cut(model)
    masks.apply_(model)
    assert torch.equal(model.weight != 0, masks["weight"])


def test_apply_names_what_does_not_fit_and_writes_nothing() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    before = snapshot(model)
    zeros = torch.zeros(2, 3, dtype=torch.bool)
    with pytest.raises(MaskError, match=r"'1.wieght', which the model lacks; did you mean '1.weight'"):
        Masks({"0.weight": zeros, "1.wieght": zeros}).apply_(model)
    with pytest.raises(MaskError, match=r"'1.weight' has shape \(2, 3\) in the masks and \(2, 2\) in the model"):
        Masks({"0.weight": zeros, "1.weight": zeros}).apply_(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in snapshot(model).items())


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.text(min_size=1, max_size=12), st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=4),
    st.integers(0, 99),
)
def test_saved_masks_come_back_through_safetensors(shapes: dict[str, list[int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    masks = Masks({name: torch.rand(shape, generator=generator) < 0.5 for name, shape in shapes.items()})
    state = masks.state_dict()
    assert sum(tensor.numel() for key, tensor in state.items() if key.startswith("bits/")) == sum(
        (mask.numel() + 7) // 8 for mask in masks.values()
    )
    loaded = Masks.load(load(save(state)))
    assert loaded == masks and list(loaded) == list(masks) and loaded.digest() == masks.digest()


def test_damaged_masks_are_refused() -> None:
    state = cut(nn.Linear(8, 3)).state_dict()
    with pytest.raises(MaskError, match="not masks"):
        Masks.load({"weight": torch.zeros(3)})
    with pytest.raises(MaskError, match="not masks"):
        Masks.load({})
    with pytest.raises(MaskError, match="not masks"):
        Masks.load({key: value for key, value in state.items() if key != "bits/weight"})
    with pytest.raises(MaskError, match="'weight' are damaged: 2 bytes"):
        Masks.load({**state, "bits/weight": state["bits/weight"][:2]})


# --- snapshot, restore, recalibrate -------------------------------------------------------------------------------


def disturb(model: nn.Module) -> None:
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(1)


def test_restore_is_bit_equal_in_place_and_keeps_what_is_asked() -> None:
    model = Net()
    start, identities = snapshot(model), [id(p) for p in model.parameters()]
    assert start.keys() == model.state_dict().keys()
    disturb(model)
    now, masks = snapshot(model), cut(model)
    assert all(not torch.equal(now[name], start[name]) for name in start)
    restore(model, start, masks, keep=["prompt", "*.running_*"])
    expected = {
        **start,
        **{name: start[name] * mask for name, mask in masks.items()},
        **{name: now[name] for name in ("prompt", "body.1.running_mean", "body.1.running_var")},
    }
    assert all(torch.equal(tensor, expected[name]) for name, tensor in snapshot(model).items())
    assert [id(p) for p in model.parameters()] == identities


def test_a_snapshot_shares_no_memory_with_the_model() -> None:
    model = nn.BatchNorm2d(2)
    start = snapshot(model)
    disturb(model)
    assert start["weight"].tolist() == [1, 1] and start["running_mean"].tolist() == [0, 0]
    assert not start["weight"].requires_grad


def test_restore_names_what_does_not_fit() -> None:
    model = nn.Linear(2, 2)
    start = snapshot(model)
    with pytest.raises(SelectionError, match="keep: 'wait' matches no name; did you mean 'weight'"):
        restore(model, start, keep=["wait"])
    with pytest.raises(CheckpointError, match="the snapshot lacks 'bias'"):
        restore(model, {"weight": start["weight"]})
    with pytest.raises(CheckpointError, match="the model lacks 'extra'"):
        restore(model, {**start, "extra": start["bias"]})
    with pytest.raises(CheckpointError, match=r"'bias' has shape \(3,\) in the snapshot and \(2,\) in the model"):
        restore(model, {**start, "bias": torch.zeros(3)})


def test_recalibrate_averages_over_the_inputs_and_leaves_modes_and_momentum() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(1, momentum=0.3), nn.Linear(1, 1)).train()
    model[2].eval()
    disturb(model)
    batches = [torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [8.0]]), torch.tensor([[1.0], [1.0]])]
    weight = model[1].weight.clone()
    assert recalibrate(model, iter(batches)) is True
    assert model[1].running_mean.tolist() == pytest.approx([8 / 3])
    assert model[1].running_var.tolist() == pytest.approx([(2 + 8 + 0) / 3])
    assert model[1].num_batches_tracked == 3 and model[1].momentum == 0.3
    assert [module.training for module in model] == [True, True, False]
    assert torch.equal(model[1].weight, weight) and model[1].weight.grad is None


def test_recalibrate_without_batchnorm_or_without_inputs() -> None:
    assert recalibrate(nn.Sequential(nn.Linear(1, 1), nn.LayerNorm(1)), iter([])) is False
    norm = nn.BatchNorm1d(1)
    disturb(norm)
    before = copy.deepcopy(norm.state_dict())
    with pytest.raises(DataError, match="no input"):
        recalibrate(norm, [])
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm.state_dict().items())
