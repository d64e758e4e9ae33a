from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from prunekit.amount import Density
from prunekit.errors import RunError
from prunekit.files import write_text
from prunekit.plan import Rewind, Stage
from prunekit.recipe import Recipe
from prunekit.store import Run, done_stages, stored_plan

STAGE = Stage("00-1.0000", Rewind(0, 0), 5, ((5, Density(0.5)),))


def recipe(seed: int = 0) -> Recipe:
    return Recipe.model_validate({"task": "t", "prune": "p", "strategy": "s", "seed": seed})


def opened(path: Path, seed: int = 0) -> Run:
    run = Run(path)
    run.open(recipe(seed), {"threads": 1}, stored_plan((STAGE,)))
    return run


def test_a_run_reopens_with_its_recipe_only(tmp_path: Path) -> None:
    opened(tmp_path / "run").close()
    opened(tmp_path / "run").close()
    with pytest.raises(RunError, match="another recipe .seed: 0 there, 1 now"):
        opened(tmp_path / "run", seed=1)


def test_another_plan_of_the_same_recipe_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "run").close()
    with pytest.raises(RunError, match="another plan of the same recipe"):
        Run(tmp_path / "run").open(recipe(), {"threads": 1}, stored_plan((replace(STAGE, end=6, prune_at=()),)))


def test_a_run_killed_while_it_was_created_is_created_again(tmp_path: Path) -> None:
    opened(tmp_path / "run").close()
    (tmp_path / "run" / "recipe.yaml").unlink()
    opened(tmp_path / "run", seed=1).close()
    assert "seed: 1" in (tmp_path / "run" / "recipe.yaml").read_text()


def test_a_foreign_directory_or_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("x")
    with pytest.raises(RunError, match=r"holds 'photo\.jpg' and no recipe\.yaml"):
        opened(tmp_path)
    with pytest.raises(RunError, match="is a file, not a run directory"):
        opened(tmp_path / "photo.jpg")
    assert [file.name for file in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_truncated_recipe_is_named(tmp_path: Path) -> None:
    opened(tmp_path / "run").close()
    write_text(tmp_path / "run" / "recipe.yaml", "task: {na")
    with pytest.raises(RunError, match=r"recipe\.yaml is missing or damaged"):
        opened(tmp_path / "run")


def test_a_second_process_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    run = opened(tmp_path / "run")
    if (child := os.fork()) == 0:  # record locks are a process's own; one that imports everything takes seconds
        try:
            opened(tmp_path / "run")
        except RunError as error:
            os._exit(7 if "another process is writing to" in str(error) else 8)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    run.close()
    opened(tmp_path / "run").close()


def test_one_who_looks_for_a_moment_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path / "run").close()
    tries = iter([BlockingIOError(errno.EAGAIN, "held"), None])

    def lockf(*_: object) -> None:
        if problem := next(tries):
            raise problem

    monkeypatch.setattr("fcntl.lockf", lockf)
    opened(tmp_path / "run").close()
    assert list(tries) == []


def test_results_appear_in_one_step_and_the_checkpoint_goes(tmp_path: Path) -> None:
    run = opened(tmp_path / "run")
    write_text(run.folder(STAGE) / "last.safetensors", "checkpoint")

    def broken(folder: Path) -> None:
        write_text(folder / "a", "1")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        run.finish(STAGE, broken)
    assert run.done(STAGE) is None
    with pytest.raises(RunError, match="no stage of .* is complete"):
        done_stages(run.path)
    run.finish(STAGE, lambda folder: write_text(folder / "b", "2"))
    assert [file.name for file in (run.done(STAGE) or Path()).iterdir()] == ["b"]
    assert not (run.folder(STAGE) / "last.safetensors").exists()
    assert list(done_stages(run.path)) == ["00-1.0000"]
    run.close()


def test_stages_of_a_foreign_directory(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run directory: it has no recipe\.yaml"):
        done_stages(tmp_path)
