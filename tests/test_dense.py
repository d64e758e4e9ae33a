"""A dense stage that several runs share: the same bits as if each had trained its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from test_execute import REGISTRY, TOY, Notes

from prunekit.errors import RecipeError, RunError
from prunekit.execute import Execution
from prunekit.job import bind_job
from prunekit.recipe import read_recipe
from prunekit.report.results import read_results
from prunekit.store import Run, stored_plan

DENSE = "strategy={name: dense, keep_steps: [4]}"
ONCE = "strategy={name: one_shot, density: 0.5, finetune: 3}"


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Any:
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()  # accelerate keeps its precision for the whole process


def walk(path: Path, *overrides: str, dense: Path | None = None, notes: Notes | None = None) -> Path:
    job = bind_job(read_recipe(TOY, ["task.steps=10", *overrides], REGISTRY), REGISTRY)
    run = Run(path)
    run.open(job.recipe, {}, stored_plan(job.plan))
    Execution(job, run, Accelerator(cpu=True), notes or Notes(), lambda: False, dense).walk()
    run.close()
    return path


@pytest.mark.parametrize("recipe", [[], [ONCE], ["strategy.rewind=init"]])
def test_a_shared_dense_stage_gives_the_same_bits(tmp_path: Path, recipe: list[str]) -> None:
    dense = walk(tmp_path / "dense", DENSE)
    notes = Notes()
    shared, alone = walk(tmp_path / "shared", *recipe, dense=dense, notes=notes), walk(tmp_path / "alone", *recipe)
    files = sorted(str(file.relative_to(alone)) for file in alone.rglob("*") if file.is_file())
    assert sorted(str(file.relative_to(shared)) for file in shared.rglob("*") if file.is_file()) == files
    for file in files:
        if not file.endswith(("cost.json", "env.json")):
            assert (shared / file).read_bytes() == (alone / file).read_bytes(), file
    assert len(notes.losses) == sum(stage.steps for stage in read_results(alone)[1:])  # none of them the dense one's


def test_a_dense_run_alone_is_one_stage_that_keeps_steps(tmp_path: Path) -> None:
    dense = walk(tmp_path / "dense", DENSE)
    assert [(stage.name, stage.density) for stage in read_results(dense)] == [("00-1.0000", 1.0)]
    assert {file.name for file in dense.glob("step-*")} == {"step-0.safetensors", "step-4.safetensors"}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (["seed=1"], "seed: 0 there, 1 now"),
        (["task.dropout=0.2"], r"task.dropout: .* there, 0.2 now"),
        (["strategy.rewind=step:5"], r"has not kept the weights of step 5.*keep_steps: \[5\]"),
        (["prune.scorer=movement"], "looks at, or cuts within, its dense training"),
        (
            ["strategy={name: gradual, schedule: {name: cubic, density: 0.5}, begin: 2, end: 6, every: 2}"],
            "cuts within",
        ),
        (["strategy={name: at_init, density: 0.5}"], "trains no dense network"),
    ],
)
def test_another_training_is_refused(tmp_path: Path, recipe: list[str], message: str) -> None:
    dense = walk(tmp_path / "dense", DENSE)
    with pytest.raises(RunError, match=message):
        walk(tmp_path / "run", *recipe, dense=dense)
    assert not list((tmp_path / "run").glob("*/done"))


def test_an_unfinished_dense_run_is_named(tmp_path: Path) -> None:
    job = bind_job(read_recipe(TOY, ["task.steps=10", DENSE], REGISTRY), REGISTRY)
    run = Run(tmp_path / "dense")
    run.open(job.recipe, {}, stored_plan(job.plan))
    run.close()
    with pytest.raises(RunError, match="no stage of .*dense is complete yet"):
        walk(tmp_path / "run", dense=tmp_path / "dense")
    with pytest.raises(RunError, match="recipe.yaml is missing or damaged"):
        walk(tmp_path / "run", dense=tmp_path / "nothing")


def test_kept_steps_lie_within_the_training() -> None:
    with pytest.raises(RecipeError, match="keep_steps: 11 is not one of the steps 0 to 10"):
        bind_job(read_recipe(TOY, ["task.steps=10", "strategy={name: dense, keep_steps: [11]}"], REGISTRY), REGISTRY)
