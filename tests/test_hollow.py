"""Hollow networks: shapes without entries, for counting what a pass would cost."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunekit.amount import MacDensity
from prunekit.calibration import Calibration
from prunekit.measure import count_macs, macs_per_tensor
from prunekit.score import magnitude
from prunekit.structured.pruner import Structured
from prunekit.structured.trial import hollow

EXAMPLE = torch.ones(2, 3)


class Looks(nn.Module):
    """Its code branches on what it computed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x if x.mean() > 0 else -x)


def test_a_hollow_network_costs_as_much_and_holds_nothing() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    empty, shape = hollow(model, EXAMPLE)
    assert {each.device.type for each in (shape, *empty.parameters(), *empty.buffers())} == {"meta"}
    assert count_macs(empty, shape).dense == 2 * (3 * 8 + 8 * 2)
    assert {each.device.type for each in model.parameters()} == {"cpu"}


def test_one_that_looks_at_entries_is_left_as_it_is() -> None:
    model = Looks()
    empty, example = hollow(model, EXAMPLE)
    assert empty is model and example is EXAMPLE


def test_either_is_cut_to_its_multiply_adds() -> None:
    for model in (Looks(), nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2))):
        cost = {name: macs.dense for name, macs in macs_per_tensor(model, EXAMPLE).items()}
        pruner = Structured(magnitude(), finder="torch_pruning")  # torch.export does not take branches
        shape = pruner.cut(model, pruner.start(model), MacDensity(0.5, cost), Calibration(example=EXAMPLE))
        assert shape.kept == 3 * 4 + 4 + 4 * 2 + 2
