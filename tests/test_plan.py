from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunekit.amount import Density, Rate
from prunekit.errors import RecipeError, SelectionError
from prunekit.plan import Plan, Rewind, Stage, checked, gradual, iterative, rewind_point
from prunekit.schedule import cubic, explicit, geometric, levels, linear


def test_density_keeps_the_rounded_share() -> None:
    assert Density(0.1).keep(1000, 1005) == 100
    assert Density(0.5).keep(300, 1000) == 300  # never more than survive


def test_rate_counts_as_the_paper_does() -> None:
    assert Rate(0.2).keep(11, 999) == 9  # ceil(0.2 * 10) = 2 go
    assert Rate(0.2).keep(10, 999) == 8  # ceil(0.2 * 9) = 2 go
    assert Rate(0.2).keep(1, 999) == 1
    assert Rate(0.2).keep(0, 999) == 0


@pytest.mark.parametrize("value", [0.0, -0.1, 1.01, float("nan")])
def test_density_outside_its_range_is_refused(value: float) -> None:
    with pytest.raises(SelectionError, match="density must be above 0 and at most 1"):
        Density(value)


@pytest.mark.parametrize("value", [1.0, -0.1])
def test_rate_outside_its_range_is_refused(value: float) -> None:
    with pytest.raises(SelectionError, match="rate must be at least 0 and below 1"):
        Rate(value)


@given(st.floats(0.001, 1), st.sampled_from([geometric, linear, cubic]))
def test_schedules_start_dense_end_at_the_target_and_never_rise(density: float, schedule: type) -> None:
    curve = [schedule(density)(k / 10) for k in range(11)]
    assert curve[0] == 1
    assert curve[-1] == density
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(curve))


def test_levels() -> None:
    assert levels(geometric(0.25), rounds=2) == (0.5, 0.25)
    assert levels(linear(0.5), rounds=2) == (0.75, 0.5)
    assert levels(explicit([0.7, 0.3, 0.2]), rounds=3) == (0.7, 0.3, 0.2)


def test_explicit_must_fall() -> None:
    with pytest.raises(SelectionError, match="falling"):
        explicit([0.5, 0.6])


def test_rewind_points() -> None:
    assert rewind_point("init", steps=10) == Rewind(0, 0)
    assert rewind_point("step:4", steps=10, keep=("*bias",)) == Rewind(4, 4, ("*bias",))
    assert rewind_point("lr:3", steps=10) == Rewind(None, 7)
    assert rewind_point("none", steps=10) == Rewind(None, 0)


@pytest.mark.parametrize("text", ["step", "step:-1", "lr:x", "initial", "", "init:3"])
def test_a_rewind_that_is_none_of_these_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="is not one of init, step:K, lr:T, none"):
        rewind_point(text, steps=10)


def test_a_rewind_beyond_the_training_is_refused() -> None:
    with pytest.raises(RecipeError, match="10 steps only"):
        rewind_point("step:11", steps=10)


def test_imp_plan() -> None:
    assert iterative(100, geometric(0.25), rounds=2, rewind="step:5") == (
        Stage("00-1.0000", Rewind(0, 0), 100, ((100, Density(0.5)),)),
        Stage("01-0.5000", Rewind(5, 5), 100, ((100, Density(0.25)),)),
        Stage("02-0.2500", Rewind(5, 5), 100),
    )


def test_paper_plan_by_rate() -> None:
    plan = iterative(10, Rate(0.2), rounds=15, keep=("*temperature",))
    assert [stage.name for stage in plan][-1] == "15-0.0352"
    assert all(stage.prune_at == ((10, Rate(0.2)),) for stage in plan[:-1])
    assert plan[3].start == Rewind(0, 0, ("*temperature",))


def test_one_shot_from_pretrained_weights_trains_only_after_the_cut() -> None:
    first, second = iterative(100, geometric(0.1), rounds=1, rewind="lr:30", dense=False)
    assert (first.end, first.prune_at) == (0, ((0, Density(0.1)),))
    assert (second.start, second.end) == (Rewind(None, 70), 100)


def test_rewinding_to_a_step_that_is_never_trained_is_refused() -> None:
    with pytest.raises(RecipeError, match="rewinds to step 5, but 00-1.0000 ends at 0"):
        iterative(100, geometric(0.1), rounds=1, rewind="step:5", dense=False)


def test_no_round_is_refused() -> None:
    with pytest.raises(RecipeError, match="rounds must be at least 1"):
        iterative(100, geometric(0.1), rounds=0)


def test_gradual_plan() -> None:
    (stage,) = gradual(100, linear(0.2), begin=0, end=40, every=20)
    assert stage.prune_at == ((0, Density(1.0)), (20, Density(0.6)), (40, Density(0.2)))


def test_gradual_outside_the_training_is_refused() -> None:
    with pytest.raises(RecipeError, match="gradual"):
        gradual(100, linear(0.2), begin=50, end=101, every=10)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ((), "the plan is empty"),
        ((Stage("a", Rewind(0, 0), 5), Stage("a", Rewind(0, 0), 5)), "unique"),
        ((Stage("a", Rewind(0, 0), 5, ((6, Density(0.5)),)),), "must rise from 0 to 5"),
        ((Stage("a", Rewind(0, 0), 5, ((3, Density(0.5)), (2, Density(0.5)))),), "must rise"),
    ],
)
def test_plans_that_cannot_be_walked_are_refused(plan: Plan, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        checked(plan)
