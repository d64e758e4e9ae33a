"""Each tensor cut alone."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import prunekit as pk
from prunekit.errors import SelectionError
from prunekit.report.sensitivity import CHANGE, LOSS, PSNR, draw_sensitivity, sensitivity_csv
from prunekit.rewind import snapshot
from prunekit.score import FromData, Scores, magnitude
from prunekit.sensitivities import Sensitivity, mean_loss, output_change


def chain() -> nn.Sequential:
    """The input times (1, 2, 3, 4), summed up, times -10."""
    model = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        model[1].weight.fill_(-10)
    return model


ONES = pk.Calibration([torch.ones(2, 4)])
LOSSES = pk.Calibration([torch.ones(1, 4)], lambda model, x: (model(x) + 100).square().mean())


def test_rows_have_literal_values() -> None:
    second, first = pk.sensitivity(chain(), LOSSES, densities=[0.25, 0.5])
    # Of two weights of the first, 7 are left of 10; of one, 4. The second has one weight, half of which rounds to none.
    assert first == Sensitivity("0.weight", 0, (1, 4), (0.5, 0.25), (2, 1), 0.0, (900.0, 3600.0))
    assert second == Sensitivity("1.weight", 1, (1, 1), (0.5, 0.25), (0, 0), 0.0, (10000.0, 10000.0))
    assert (first.size, first.rise) == (4, (900.0, 3600.0))


def test_without_a_loss_the_output_is_compared() -> None:
    second, first = pk.sensitivity(chain(), ONES, densities=[0.5])
    assert (first.before, first.after) == (0.0, (pytest.approx(0.3),))
    assert second.after == (1.0,)


def test_a_measure_of_ones_own() -> None:
    rows = pk.sensitivity(chain(), densities=[0.5], measure=lambda model: -float(model[0].weight.sum()))
    assert [(row.tensor, row.before, row.after) for row in rows] == [
        ("0.weight", -10.0, (-7.0,)),
        ("1.weight", -10.0, (-10.0,)),
    ]


def test_what_is_cut_stays_cut_and_only_the_masks_tensors_are_looked_at() -> None:
    model = chain()
    masks = pk.Masks({"0.weight": torch.tensor([[True, False, False, True]])})
    masks.apply_(model)
    (row,) = pk.sensitivity(model, LOSSES, masks=masks, densities=[0.75, 0.25])
    assert (row.kept, row.before, row.after) == ((2, 1), 2500.0, (2500.0, 3600.0))


def test_the_worst_at_the_lowest_density_comes_first_and_nan_before_all() -> None:
    model = nn.Sequential(*(nn.Linear(2, 1, bias=False) for _ in range(3)))
    values = {"0.weight": 1.0, "1.weight": math.nan, "2.weight": 5.0}

    def measure(model: nn.Module) -> float:
        cut = [name for name, weight in model.named_parameters() if not weight.all()]
        return values[cut[0]] if cut else 0.0

    rows = pk.sensitivity(model, densities=[0.5], measure=measure)
    assert [row.tensor for row in rows] == ["1.weight", "2.weight", "0.weight"]


class Restless(nn.Module):
    """Counts its calls, draws random numbers, and has a weight of minus zero."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("calls", torch.zeros(()), persistent=False)
        with torch.no_grad():
            self.linear.weight[0, 0] = torch.tensor(-0.0)
            self.norm.running_mean.fill_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y: Tensor = self.norm(self.linear(x)) + torch.rand(3) * random.random()
        return y


def test_looking_at_the_output_leaves_no_trace_either() -> None:
    model = Restless()
    states = torch.get_rng_state(), random.getstate()
    pk.sensitivity(model, pk.Calibration([torch.ones(4, 3)]), densities=[0.5])
    assert model.calls == 0
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_comes_back_bit_for_bit(fails: bool) -> None:
    model = Restless()
    model.linear.eval()
    x, calls = torch.rand(4, 3), 0

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if fails and calls == 3:
            raise KeyboardInterrupt
        return model(x).square().mean()

    model(x).sum().backward()
    before, buffers = snapshot(model), model.calls.clone()
    gradient, modes = model.linear.weight.grad, [module.training for module in model.modules()]
    states = torch.get_rng_state(), random.getstate()
    data = pk.Calibration([x], loss)
    if fails:
        with pytest.raises(KeyboardInterrupt):
            pk.sensitivity(model, data)
    else:
        (row,) = pk.sensitivity(model, data, scorer=pk.taylor(), densities=[1, 0.5])
        assert row.after[0] == row.before != row.after[1]  # the same random numbers each time
    after = snapshot(model)
    assert all(torch.equal(before[name].view(-1).signbit(), after[name].view(-1).signbit()) for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(model.calls, buffers)
    assert model.linear.weight.grad is gradient
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]


def test_a_scorer_that_looks_at_data_is_asked_once() -> None:
    asked = 0

    def score(model: nn.Module, data: pk.Calibration) -> Scores:
        nonlocal asked
        asked += 1
        return magnitude()(model, data)

    plain = pk.sensitivity(chain(), LOSSES)
    assert pk.sensitivity(chain(), LOSSES, scorer=FromData(score)) == plain
    assert asked == 1
    assert pk.sensitivity(chain(), LOSSES, scorer=score) == plain
    assert asked == 2


def test_progress_counts_every_measurement() -> None:
    told: list[tuple[int, int]] = []
    pk.sensitivity(chain(), ONES, densities=[1, 0.5], progress=lambda done, whole: told.append((done, whole)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(SelectionError, match="given no density"):
        pk.sensitivity(chain(), ONES, densities=[])
    with pytest.raises(SelectionError, match="density must be above 0"):
        pk.sensitivity(chain(), ONES, densities=[0.5, 0])
    with pytest.raises(SelectionError, match="looks at network inputs"):
        pk.sensitivity(chain())
    with pytest.raises(SelectionError, match="the network's output is zero on all"):
        output_change(nn.Linear(1, 1, bias=False), pk.Calibration([torch.zeros(1, 1)]))


def test_the_mean_loss_is_that_of_the_batches() -> None:
    data = pk.Calibration([torch.zeros(1), torch.ones(1)], lambda model, x: 4 * model(x).mean())
    assert mean_loss(data)(nn.Identity()) == 2.0


ROWS = (
    Sensitivity("b.weight", 1, (2, 3), (0.5, 0.1), (3, 1), -30.0, (-28.0, math.nan)),
    Sensitivity("a.weight", 0, (4,), (0.5, 0.1), (2, 0), -30.0, (-29.5, -20.0)),
)


def test_the_csv_has_everything() -> None:
    assert sensitivity_csv(ROWS, PSNR).splitlines() == [
        "rank,place,tensor,shape,weights,density,kept,psnr_db_before,psnr_db_after,worse_by",
        "1,1,b.weight,2x3,6,0.5,3,30.0,28.0,2.0",
        "1,1,b.weight,2x3,6,0.1,1,30.0,nan,nan",
        "2,0,a.weight,4,4,0.5,2,30.0,29.5,0.5",
        "2,0,a.weight,4,4,0.1,0,30.0,20.0,10.0",
    ]
    assert [reading.text(0.12345) for reading in (PSNR, LOSS, CHANGE)] == ["0.12", "0.123", "12.35%"]


def test_the_picture_names_the_tensors_and_what_broke(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg", "a.png"):
        draw_sensitivity(ROWS, PSNR, tmp_path / name)
    drawn = (tmp_path / "a.svg").read_bytes()
    assert drawn == (tmp_path / "b.svg").read_bytes()
    for text in (b"a.weight", b"b.weight", b"50 % kept", b"not finite", b"PSNR lost (dB)"):
        assert b"<!-- " + text + b" -->" in drawn
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
