"""Inspection: every number against nets that can be counted by hand."""

from __future__ import annotations

import io
import json

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from prunekit.cli.inspect import percent, short, show_inspection
from prunekit.errors import MaskError
from prunekit.masks import Masks
from prunekit.measure import Macs, count_macs, macs_per_tensor
from prunekit.sparse.inspect import Anatomy, Part, inspect


class Net(nn.Module):
    """2x2 images: conv 2 -> 3 (1x1), norm, depthwise 3x3, one linear layer used twice, and a parameter nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.deep = nn.Conv2d(3, 3, 3, padding=1, groups=3)
        self.mix = nn.Linear(3, 3)
        self.spare = nn.Parameter(torch.ones(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.deep(self.norm(self.conv(x))).mean((2, 3))
        return self.mix(self.mix(x))


def pruned() -> tuple[Net, Masks]:
    """Row 1 and column 0 of the convolution are dead, depthwise filter 2, and row 2 of the linear layer.

    And entry (0, 1) of the linear layer is kept and happens to be 0.
    """
    model = Net()
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    conv, deep, mix = torch.ones(3, 2, 1, 1), torch.ones(3, 1, 3, 3), torch.ones(3, 3)
    conv[1], conv[:, 0], deep[2], mix[2] = 0, 0, 0, 0
    masks = Masks({"conv.weight": conv.bool(), "deep.weight": deep.bool(), "mix.weight": mix.bool()})
    masks.apply_(model)
    with torch.no_grad():
        model.mix.weight[0, 1] = 0
    return model, masks


def named(anatomy: Anatomy) -> dict[str, Part]:
    return {part.name: part for part in anatomy.parts}


def shown(anatomy: Anatomy, *, as_json: bool = False, width: int = 80) -> str:
    out = io.StringIO()
    show_inspection(anatomy, title="run [x]", as_json=as_json, console=Console(file=out, width=width))
    return out.getvalue()


def test_every_tensor_once_in_the_order_of_the_state_with_everything_that_is_known() -> None:
    model, masks = pruned()
    anatomy = inspect(model, masks, torch.rand(1, 2, 2, 2))
    assert [part.name for part in anatomy.parts] == list(model.state_dict())
    parts = named(anatomy)
    assert parts["conv.weight"] == Part(
        name="conv.weight",
        shape=(3, 2, 1, 1),
        dtype="float32",
        parameter=True,
        prunable=True,
        size=6,
        kept=2,
        nonzero=2,
        revived=0,
        dense_bytes=24,
        sparse_bytes=1 + 8,
        macs=Macs(6 * 4, 2 * 4),
        read=True,
        dead_outputs=1,
        dead_inputs=1,
    )
    deep, mix = parts["deep.weight"], parts["mix.weight"]
    assert (deep.size, deep.kept, deep.sparse_bytes, deep.dead_outputs, deep.dead_inputs) == (27, 18, 4 + 72, 1, None)
    assert deep.macs == Macs(27 * 4, 18 * 4)
    assert (mix.kept, mix.nonzero, mix.revived, mix.dead_outputs, mix.dead_inputs) == (6, 5, 0, 1, 0)
    assert mix.macs == Macs(2 * 9, 2 * 6)  # used twice
    assert (parts["mix.bias"].macs, parts["mix.bias"].read, parts["mix.bias"].dead_outputs) == (Macs(0, 0), True, None)
    steps = parts["norm.num_batches_tracked"]
    assert (steps.parameter, steps.dtype, steps.shape, steps.dense_bytes, steps.macs) == (False, "int64", (), 8, None)
    assert (steps.read, steps.prunable, steps.kept, steps.nonzero) == (None, False, 1, 0)
    assert parts["spare"].read is False and anatomy.never_used == ("spare",)


def test_totals_by_every_denominator() -> None:
    model, masks = pruned()
    totals = inspect(model, masks, torch.rand(1, 2, 2, 2)).totals
    assert (totals.prunable, totals.kept) == (42, 26)
    assert (totals.parameters, totals.kept_of_all, totals.nonzero) == (42 + 17, 26 + 17, 25 + 17)
    assert (totals.buffers, totals.dense_bytes) == (7, 59 * 4 + 6 * 4 + 8)
    assert totals.sparse_bytes == 9 + 76 + (2 + 24) + 17 * 4 + 6 * 4 + 8
    assert totals.macs == Macs(24 + 108 + 18, 8 + 72 + 12)
    assert (totals.dead_outputs, totals.dead_inputs) == (3, 1)


def test_without_an_example_nothing_is_said_of_work_or_use() -> None:
    model, masks = pruned()
    anatomy = inspect(model, masks, None)
    assert anatomy.never_used == () and anatomy.other_macs is None and anatomy.totals.macs is None
    assert {(part.macs, part.read) for part in anatomy.parts} == {(None, None)}
    assert "never used" not in shown(anatomy) and "MACs" not in shown(anatomy)


@pytest.mark.parametrize(
    ("layer", "zero", "dead"),
    [
        (nn.ConvTranspose2d(2, 3, 1), [(0, slice(None))], (0, 1)),  # input channel 0: the first axis
        (nn.ConvTranspose2d(2, 3, 1), [(slice(None), 2)], (1, 0)),
        (nn.ConvTranspose2d(4, 2, 1, groups=2), [(slice(0, 2), 0)], (1, 2)),  # the only output of the first group
        (nn.Conv2d(4, 4, 1, groups=2), [(slice(2, 4), 1)], (0, 1)),  # input 3, read by the second group only
        (nn.Conv2d(4, 4, 1, groups=2), [(3, slice(None))], (1, 0)),
        (nn.ConvTranspose1d(3, 3, 2, groups=3), [(1, slice(None))], (1, None)),
        (nn.Conv1d(2, 2, 3), [(0, 0), (1, 1, 2)], (0, 0)),  # 0 -> 0 is gone and a tap of 1 -> 1: all channels live
        (nn.Linear(3, 2), [(slice(None), 1), (1, slice(None))], (1, 1)),
    ],
)
def test_dead_channels_along_each_layers_own_axes(
    layer: nn.Module, zero: list[tuple[int | slice, ...]], dead: tuple[int, int | None]
) -> None:
    nn.init.ones_(layer.weight)
    with torch.no_grad():
        for index in zero:
            layer.weight[index] = 0
    part = named(inspect(layer, Masks({}), None))["weight"]
    assert (part.dead_outputs, part.dead_inputs) == dead


def test_fully_kept_masks_are_stored_densely_and_half_values_are_two_bytes() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)).half()
    masks = Masks({"0.weight": torch.ones(3, 3).bool(), "1.weight": torch.eye(3).bool()})
    masks.apply_(model)
    parts = inspect(model, masks, None).parts
    assert [(part.dtype, part.dense_bytes, part.sparse_bytes) for part in parts] == [
        ("float16", 18, 18),
        ("float16", 18, 2 + 6),
    ]


def test_masks_that_do_not_fit_or_were_not_applied() -> None:
    model, masks = pruned()
    with pytest.raises(MaskError, match="'wieght', which the model lacks"):
        inspect(nn.Linear(2, 2), Masks({"wieght": torch.ones(2, 2).bool()}), None)
    with torch.no_grad():
        model.conv.weight[0, 0] = 7
    anatomy = inspect(model, masks, None)
    conv = named(anatomy)["conv.weight"]
    assert (conv.kept, conv.nonzero, conv.revived) == (2, 3, 1)
    assert "some cut weights are not 0 in conv.weight: apply the masks" in shown(anatomy)


# --- multiply-adds by tensor --------------------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Parameter(torch.rand(4, 2))
        self.tied = self.both
        self.idle = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        query, key = (nn.functional.linear(x, part) for part in self.both.chunk(2))
        return query @ key.transpose(1, 2)


def test_products_of_activations_have_no_name_and_parts_of_a_weight_have_the_weights() -> None:
    model, x = Attention().train(), torch.rand(1, 5, 2)
    masks = {"both": torch.tensor([[True, True], [False, True], [False, False], [False, False]])}
    counts = macs_per_tensor(model, x, masks)
    assert counts == {"both": Macs(2 * 5 * 4, 15), "": Macs(5 * 5 * 2, 50)}
    assert count_macs(model, x, masks) == Macs(90, 65)
    assert model.training


def test_the_sum_is_what_count_macs_returns_and_a_bias_takes_no_share() -> None:
    model, masks = pruned()
    x = torch.rand(3, 2, 2, 2)
    counts = macs_per_tensor(model, x, {**masks, "mix.bias": torch.zeros(3).bool()})
    assert list(counts) == [name for name, _ in model.named_parameters() if name != "spare"] + [""]
    assert counts["mix.weight"] == Macs(54, 36)
    assert count_macs(model, x, masks) == Macs(
        sum(each.dense for each in counts.values()), sum(each.kept for each in counts.values())
    )


# --- what is printed ----------------------------------------------------------------------------------------------


def test_the_table_fits_80_columns_and_ends_in_sums_with_their_denominators() -> None:
    model, masks = pruned()
    lines = shown(inspect(model, masks, torch.rand(1, 2, 2, 2))).splitlines()
    assert lines[0] == "run [x]" and max(map(len, lines)) <= 80
    row = next(line for line in lines if line.startswith("conv.weight"))
    assert row.split() == ["conv.weight", "3x2x1x1", "33.3%", "24", "9", "24", "8", "1", "1"]
    row = next(line for line in lines if line.startswith("norm.running_mean"))
    assert row.split() == ["norm.running_mean", "3", "-", "12", "12", "-", "-", "-", "-"]
    assert "some kept weights happen to be 0 in mix.weight" in lines
    assert "never used: the forward pass does not read spare" in lines
    assert [line.rstrip() for line in lines[lines.index("") + 1 :]][-9:] == [
        "",
        "kept, of the prunable parameters: 26 of 42 (61.9%)",
        "kept, of all parameters: 43 of 59 (72.9%)",
        "not zero, of all parameters: 42 of 59 (71.2%)",
        "buffers, in none of these: 7 entries",
        "bytes in a ticket file without its header, of all: 211 of 268 (78.7%)",
        "multiply-adds with a kept weight or none, of all: 92 of 150 (61.3%)",
        "multiply-adds by no parameter, in both: 0",
        "dead channels: 3 outputs, 1 inputs",
    ]


def test_long_names_fold_inside_80_columns() -> None:
    deep = nn.Sequential()
    deep.add_module("a" * 50, nn.Conv2d(256, 256, 3))
    lines = shown(inspect(deep, Masks({}), torch.rand(1, 256, 3, 3))).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("256x256x3x3" in line and "2.4M" in line and "590k" in line for line in lines)


def test_json_is_numbers_and_nothing_else() -> None:
    model, masks = pruned()
    text = json.loads(shown(inspect(model, masks, torch.rand(1, 2, 2, 2)), as_json=True, width=20))
    assert text["title"] == "run [x]" and text["never_used"] == ["spare"] and text["other_macs"]["dense"] == 0
    conv = text["tensors"][1]
    assert (conv["name"], conv["macs"], conv["shape"]) == ("conv.weight", {"dense": 24, "kept": 8}, [3, 2, 1, 1])
    assert text["totals"]["kept"] == 26 and text["totals"]["parameters"] == 59
    assert json.loads(shown(inspect(model, masks, None), as_json=True))["totals"]["macs"] is None


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (999, "999"), (1000, "1.0k"), (9960, "10k"), (999_600, "1.0M"), (5_308_416, "5.3M")]
)
def test_short_numbers(count: int, text: str) -> None:
    assert short(count) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 7, "0%"), (7, 7, "100%"), (1, 10**6, "0.01%"), (999_999, 10**6, "99.99%"), (1, 8, "12.5%"), (1, 500, "0.2%")],
)
def test_shares_say_none_and_all_only_where_it_is_so(part: int, whole: int, text: str) -> None:
    assert percent(part, whole) == text
