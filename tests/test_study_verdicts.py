"""What differences decide: intervals over seeds and items, and whether a ticket is a winning one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunekit.report.results import StageResult
from prunekit.study.overlap import Overlap, Shared
from prunekit.study.results import ArmResult, decide
from prunekit.study.stats import Difference, comparable, paired
from prunekit.study.tables import costs, overlapping, verdicts
from prunekit.task import Measure


def test_an_interval_of_seeds_and_items() -> None:
    gaps = {(0, "a"): 1.0, (0, "b"): 1.0, (1, "a"): 3.0, (1, "b"): 3.0}
    found = paired(gaps, dict.fromkeys(gaps, 0.0))
    assert found.mean == 2.0 and (found.seeds, found.items) == (2, 2)
    assert found.half == pytest.approx(12.706, abs=1e-3)  # Student's at one degree of freedom; the variance is 2 / 2
    three = {(seed, item): float(seed) for seed in range(3) for item in "ab"}
    assert paired(three, dict.fromkeys(three, 0.0)).half == pytest.approx(4.3027 * (1 / 3) ** 0.5, abs=1e-4)
    items = {(seed, item): own for seed in range(2) for item, own in (("a", 0.0), ("b", 1.0), ("c", 2.0))}
    assert paired(items, dict.fromkeys(items, 0.0)).half == pytest.approx(4.3027 * (1 / 3) ** 0.5, abs=1e-4)
    spread = {(seed, item): 10.0 * seed + own for seed in range(2) for item, own in (("a", 0.0), ("b", 2.0))}
    expected = 12.706 * (5**2 + 1**2) ** 0.5  # the seeds' means have a standard error of 5, the items' of 1
    assert paired(spread, dict.fromkeys(spread, 0.0)).half == pytest.approx(expected, abs=1e-2)
    with_seed = paired({**gaps, (2, "a"): 9.0, (2, "b"): 9.0}, dict.fromkeys(gaps, 0.0))
    assert with_seed == found  # what only one arm has counts nothing


@pytest.mark.parametrize(("seeds", "items", "share"), [(2, 24, 3.0), (3, 3, 1.0), (5, 8, 0.0)])
def test_intervals_cover_in_95_of_100_studies(seeds: int, items: int, share: float) -> None:
    """``share``: standard error that comes from seeds, of that from items."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        gaps = share * (seeds / items) ** 0.5 * rng.normal(size=(seeds, 1)) + rng.normal(size=(1, items))
        found = paired(*({(s, str(i)): g for (s, i), g in np.ndenumerate(each)} for each in (gaps, 0 * gaps)))
        covered += found.low <= 0 <= found.high
    assert covered >= 0.94 * 400


def test_items_that_not_all_seeds_have_count_nothing() -> None:
    mine = {(0, "a"): 1.0, (0, "b"): 2.0, (1, "a"): 1.0, (1, "b"): 2.0, (1, "new"): 50.0}
    assert paired(mine, dict.fromkeys(mine, 0.0)).mean == 1.5
    assert not comparable({(0, "a"): 1.0}, {(0, "b"): 1.0, (1, "a"): 1.0})


def test_one_seed_gives_no_interval_and_equal_arms_an_empty_one() -> None:
    assert paired({(0, "a"): 1.0, (0, "b"): 2.0}, {(0, "a"): 0.0, (0, "b"): 0.0}).half == math.inf
    same = {(seed, item): 2.0 for seed in range(2) for item in "ab"}
    assert paired(same, same) == Difference(0.0, 0.0, 2, 2)
    with pytest.raises(ValueError, match="share no item"):
        paired({(0, "a"): 1.0}, {(1, "a"): 1.0})


def arm(name: str, value: float, higher: bool = True, seeds: int = 2) -> ArmResult:
    """Return an arm that gets ``value`` everywhere, give or take the item's own."""
    measures = tuple(
        Measure("t", "d", item, "m", value=value + own, protocol="p", higher_is_better=higher)
        for item, own in (("a", 0.0), ("b", 1.0), ("c", 2.0))
    )
    counts = {"density": 0.5, "total": 100, "kept": 50, "prunable": 100, "remaining": 50, "steps": 10}
    costs = dict.fromkeys(("bytes", "ticket_bytes", "macs_dense", "macs_kept", "seconds", "latency_ms", "peak_mib"), 1)
    stage = StageResult(
        Path(),
        "01",
        measures=measures,
        unused=None,
        emptied=(),
        per_tensor=(),
        **counts,
        **costs,  # type: ignore
    )
    stages = {seed: [stage] for seed in range(seeds)}
    return ArmResult(name, stages, 10, 20, 1.0)


@pytest.mark.parametrize(
    ("values", "higher", "winning"),
    [
        ({"dense": 30.0, "imp": 29.95, "random": 28.0}, True, "yes"),
        ({"dense": 30.0, "imp": 29.8, "random": 28.0}, True, "no"),  # more than the margin worse
        ({"dense": 30.0, "imp": 29.95, "random": 29.95}, True, "no"),  # no better than chance
        ({"dense": 30.0, "imp": 29.95}, True, "undecided"),  # nothing to beat
        ({"dense": 1.0, "imp": 0.9, "random": 1.2}, False, "yes"),
        ({"dense": 1.0, "imp": 1.2, "random": 1.5}, False, "no"),
    ],
)
def test_what_a_winning_ticket_is(values: dict[str, float], higher: bool, winning: str) -> None:
    arms = {name: arm(name, value, higher) for name, value in values.items()}
    (decision,) = decide(arms, [("t", "d")], "m", asked=list(values), higher=higher, margin=0.1)
    assert decision.arm == "imp" and decision.winning == winning


def test_one_seed_decides_nothing() -> None:
    arms = {name: arm(name, value, seeds=1) for name, value in {"dense": 30.0, "imp": 29.99, "random": 20.0}.items()}
    (decision,) = decide(arms, [("t", "d")], "m", asked=list(arms), higher=True, margin=0.1)
    assert decision.winning == "undecided"


def test_a_control_that_was_asked_for_and_is_missing_leaves_it_undecided() -> None:
    arms = {name: arm(name, value) for name, value in {"dense": 30.0, "imp": 29.95, "random": 28.0}.items()}
    late = arm("reinit", 28.0)
    arms["reinit"] = replace(late, stages={seed + 7: stages for seed, stages in late.stages.items()})
    asked = ("dense", "imp", "random", "shuffled", "reinit")  # shuffled failed, reinit shares no seed
    (decision,) = decide(arms, [("t", "d")], "m", asked=asked, higher=True, margin=0.1)
    assert decision.winning == "undecided" and decision.missing == ("shuffled", "reinit")
    (row,) = verdicts([decision], {("t", "d"): "t"}, 2).rows
    assert row[2:] == ("**undecided**", row[3], row[4], "missing", "missing", row[7])


def test_costs_count_what_an_arm_needs_and_sum_what_was_trained() -> None:
    arms = {
        "dense": replace(arm("dense", 1.0), steps=100),
        "imp": replace(arm("imp", 1.0), steps=300, after="dense"),
        "reinit": replace(arm("reinit", 1.0), steps=100, after="imp"),
    }
    assert [row[4:6] for row in costs(arms).rows] == [
        ("100", "200"),
        ("400", "600"),
        ("500", "200"),
        ("", "1,000"),
    ]


def test_tickets_of_many_small_tensors_are_told_apart_by_any() -> None:
    pair = Overlap("a", "b", {0: {f"l{number:03}": Shared(5, 5, 3, 2.5) for number in range(120)}})
    (row,) = overlapping([pair]).rows
    assert row[:3] == ("a, b", "42.9 %", "33.3 %") and row[3].startswith("`l119` 42.9 %")
