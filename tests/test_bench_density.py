"""Bench at several densities: which networks run, from when on zeros pay, and what is compared with what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunekit.bench import Bench, Case, Machine, Row, Size, bench, break_even, curve, turns
from prunekit.bench.cuts import FILL, at_density, choose_densities
from prunekit.errors import RecipeError
from prunekit.masks import Masks
from prunekit.measure import Macs
from prunekit.sparse.source import load, save
from prunekit.sparse.ticket import About, Ticket

LINEAR = {"name": "python:torch.nn:Linear", "in_features": 8, "out_features": 8}


def ticket(kept: int = 8) -> Ticket:
    """Return 8 x 8 weights of 1 to 64, of which the last ones are kept."""
    model = nn.Linear(8, 8)
    with torch.no_grad():
        model.weight.copy_(torch.arange(1.0, 65).reshape(8, 8))
    masks = Masks({"weight": (torch.arange(64) >= 64 - kept).reshape(8, 8)})
    masks.apply_(model)
    return Ticket.of(model, masks, About())


# --- networks -----------------------------------------------------------------------------------------------------


def test_cut_further_the_largest_weights_stay_and_nothing_else_changes() -> None:
    before = ticket(kept=32)
    cut = at_density(before, 0.0625)
    assert cut.masks.kept == 4 and cut.tensors["weight"][-1].tolist() == [0, 0, 0, 0, 61, 62, 63, 64]
    assert cut.tensors["weight"].count_nonzero() == 4 and torch.equal(cut.tensors["bias"], before.tensors["bias"])
    assert before.tensors["weight"].count_nonzero() == 32 and at_density(before, 0.5) is before


def test_filled_no_weight_is_zero_and_the_kept_ones_stay() -> None:
    before = ticket(kept=8)
    filled, again = at_density(before, 1.0), at_density(before, 1.0)
    weight = filled.tensors["weight"]
    assert filled.masks.kept == 64 and weight.count_nonzero() == 64
    assert weight[-1].tolist() == [57, 58, 59, 60, 61, 62, 63, 64] and weight[:-1].abs().max() < 5 * FILL
    assert torch.equal(weight, again.tensors["weight"])
    assert before.tensors["weight"].count_nonzero() == 8


def test_what_has_less_than_asked_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    masks = Masks({"0.weight": torch.eye(8) > 0, "1.weight": torch.ones(8, 8) > 0})
    masks.apply_(model)
    cut = at_density(Ticket.of(model, masks, About()), 0.25)
    assert cut.masks.per_tensor() == {"0.weight": (8, 64), "1.weight": (16, 64)}


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [([], (0.125,)), ([0.05, 0.1, 0.05], (0.1, 0.05)), ([0.13, 0.01], (0.125, 0.01)), ([0.12], (0.125,))],
)
def test_densities_are_sorted_and_the_tickets_own_needs_no_digits(
    asked: Sequence[float], chosen: tuple[float, ...]
) -> None:
    assert choose_densities(ticket(), asked) == chosen


@pytest.mark.parametrize("density", [0.0, -0.1, 1.1, math.nan])
def test_a_density_is_a_share(density: float) -> None:
    with pytest.raises(RecipeError, match="--density must be above 0 and at most 1"):
        choose_densities(ticket(), [density])


def test_what_was_cut_does_not_come_back() -> None:
    with pytest.raises(RecipeError, match=r"--density 0\.5 is more than the source has: it keeps 12\.50% of"):
        choose_densities(ticket(), [0.5, 0.1])
    assert choose_densities(ticket(kept=64), [1]) == (1.0,)


# --- cases --------------------------------------------------------------------------------------------------------


def test_dense_engines_run_once_for_each_table_and_ours_at_each_density(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_interleaved", lambda job, cases, *_: [Row(case) for case in cases])
    model, masks = nn.Linear(8, 8), Masks({"weight": (torch.arange(64) < 48).reshape(8, 8)})
    masks.apply_(model)
    save(model, masks, tmp_path / "ticket")
    found = bench(
        tmp_path / "ticket",
        network=LINEAR,
        shapes=[(1, 8), (2, 8)],
        backends=["eager", "prunekit-dense", "prunekit"],
        threads=[1, 2, 1],
        densities=[0.1, 0.5],
    )
    first = [("eager", 0.75), ("prunekit-dense", 1.0), ("prunekit", 0.5), ("prunekit", 0.1)]
    settings = [((1, 8), 1), ((1, 8), 2), ((2, 8), 1), ((2, 8), 2)]
    assert [row.case for row in found.rows] == [
        Case(name, shape, threads, density) for shape, threads in settings for name, density in first
    ]
    assert list(found.by_setting()) == settings
    assert {density: (size.kept, size.kept_of_all) for density, size in found.sizes.items()} == {
        1.0: (64, 72),
        0.75: (48, 56),
        0.5: (32, 40),
        0.1: (6, 14),
    }
    assert found.macs[(2, 8), 0.1] == Macs(128, 12) and found.macs[(2, 8), 1.0] == Macs(128, 128)
    assert found.sizes[0.1].bytes_sparse < found.sizes[0.5].bytes_sparse
    assert len({size.bytes_dense for size in found.sizes.values()}) == 1


@pytest.mark.slow
def test_every_row_is_compared_with_eager_on_its_own_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(8, 8)
    masks = Masks({"weight": torch.rand(8, 8) > 0.5})
    masks.apply_(model)
    save(model, masks, tmp_path / "ticket", network=LINEAR, example=torch.zeros(1, 8))
    said: list[str] = []
    options: dict[str, Any] = {"network": LINEAR, "threads": [1], "runs": 1, "progress": said.append}
    found = bench(tmp_path / "ticket", densities=[0.05], backends=["eager", "prunekit-dense", "prunekit"], **options)
    assert [row.failure for row in found.rows] == [""] * 3
    # The outputs differ by tenths between the networks, so these are its own.
    assert all(row.difference is not None and row.difference < 1e-5 for row in found.rows)
    assert said[4:6] == [f"the right output at density {density}, from eager" for density in ("1", "0.05")]
    source = load(tmp_path / "ticket", network=LINEAR)
    outputs = [at_density(source, density).model()(source.example()) for density in (1.0, masks.density, 0.05)]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-4 and (outputs[1] - outputs[2]).abs().max() > 1e-4


# --- break-even ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "density"),
    [
        ([], None),
        ([(1.0, 0.5), (0.1, 0.9)], 0.0),
        ([(1.0, 1.0), (0.1, 2.0)], math.inf),
        ([(1.0, 0.5), (0.01, 1.5)], 0.1),
        ([(0.01, 1.5), (1.0, 0.5)], 0.1),
        ([(1.0, 0.5), (0.1, 1.0), (0.01, 3.0)], 0.1),
        ([(1.0, 0.5), (0.16, 0.75), (0.01, 1.75)], 0.08),
        # Faster by chance at a density above one that is not: what counts is where all that is sparser is faster.
        ([(1.0, 1.2), (0.4, 0.5), (0.1, 1.5)], 0.2),
    ],
)
def test_break_even_is_where_speed_up_leaves_1_on_the_way_to_denser(
    points: list[tuple[float, float]], density: float | None
) -> None:
    assert break_even(points) == (density if density is None else pytest.approx(density))


def test_a_curve_is_over_what_is_really_kept_and_leaves_failures_out() -> None:
    sizes = {density: Size(10, 10, kept, 0, 0) for density, kept in ((1.0, 10), (0.5, 4), (0.1, 1))}
    timed = {("eager", 0.5): 6.0, ("prunekit-dense", 1.0): 8.0, ("prunekit", 0.5): 3.0, ("prunekit", 0.1): None}
    rows = [Row(Case(name, (1,), 1, d), () if ms is None else (ms,)) for (name, d), ms in timed.items()]
    other = Row(Case("prunekit", (1,), 2, 0.1), (1.0,))
    found = Bench("net", sizes, {}, Machine("", {}), (*rows, other))
    assert curve(found, ((1,), 1), rows[0]) == ((1.0, 0.75), (0.4, 2.0))
    assert curve(found, ((1,), 1), None) == ()
    assert found.best_dense(((1,), 1)) == rows[0] and found.best_dense(((1,), 2)) is None
