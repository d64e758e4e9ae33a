from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from prunekit.calibration import Calibration
from prunekit.errors import SelectionError


def test_inputs_are_caught_at_the_door_and_the_model_never_runs() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    data = Calibration([{"x": torch.ones(2, 3), "y": 1}], lambda net, batch: net(input=batch["x"]).sum())
    assert [x.tolist() for x in data.inputs(model)] == [torch.ones(2, 3).tolist()]
    assert int(model[0].num_batches_tracked) == 0 and not model._forward_pre_hooks


def test_examples_are_the_rows_of_every_batch() -> None:
    seen: list[Any] = []

    def loss(model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
        seen.append((batch["x"].tolist(), batch["y"].tolist(), batch["scale"].item(), batch["name"]))
        return batch["x"].sum()

    batch = {"x": torch.tensor([[1.0], [2.0]]), "y": torch.tensor([3, 4]), "scale": torch.tensor(5), "name": "a"}
    assert [float(each) for each in Calibration([batch], loss).examples(nn.Identity())] == [1.0, 2.0]
    assert seen == [([[1.0]], [3], 5, "a"), ([[2.0]], [4], 5, "a")]


def test_first_batches_and_functions_of_batches() -> None:
    calls = []

    def batches() -> Any:
        calls.append(1)
        return iter([torch.zeros(1), torch.ones(1), torch.ones(1)])

    data = Calibration(batches)
    for _ in range(2):
        assert [float(x) for x in data.first(2).inputs(nn.Identity())] == [0.0, 1.0]
    assert len(calls) == 2


def test_it_reads_in_one_line_whatever_it_holds() -> None:
    batches = [torch.zeros(64, 64)] * 2
    full = Calibration(batches, nn.functional.mse_loss, {"weight": batches[0]}, example=torch.zeros(1, 3, 8, 8))
    assert repr(full) == "Calibration(batches: 2, loss: mse_loss, movement: of 1 tensors, example: (1, 3, 8, 8))"
    assert repr(Calibration(lambda: batches)) == "Calibration(batches: made afresh)"
    assert repr(Calibration()) == "Calibration()"


def test_what_is_missing_is_said() -> None:
    model = nn.Identity()
    with pytest.raises(SelectionError, match="looks at network inputs: pass data="):
        next(Calibration().inputs(model))
    with pytest.raises(SelectionError, match="looks at losses"):
        next(Calibration([torch.ones(1)]).losses(model))
    used = iter([torch.ones(1)])
    data = Calibration(lambda: used)
    assert len(list(data.inputs(model))) == 1
    with pytest.raises(SelectionError, match="an iterator that is used up"):
        list(data.inputs(model))
    with pytest.raises(SelectionError, match="the loss never called the model"):
        next(Calibration([torch.ones(1)], lambda net, x: x.sum()).inputs(model))
