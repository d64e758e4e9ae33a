"""Where the arms of a study are run, in which order, and what becomes of those that fail."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch

from prunekit.errors import RunError
from prunekit.files import write_json
from prunekit.study import pools, process
from prunekit.study.clock import Clock, seconds_of
from prunekit.study.pools import Here
from prunekit.study.walk import Work, walk


def work(arm: str, after: str | None = None, seed: int = 0) -> Work:
    return Work(arm, seed, Path(f"{arm}.yaml"), Path(arm), after)


class Told:
    """A pool that does what it is told, and knows what was submitted."""

    def __init__(self, jobs: int, outcomes: Mapping[str, str | Exception]) -> None:
        self.jobs = jobs
        self.outcomes = outcomes
        self.submitted: list[str] = []

    def submit(self, work: Work) -> Future[str]:
        self.submitted.append(work.arm)
        future: Future[str] = Future()
        outcome = self.outcomes.get(work.arm, "")
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
        return future


def test_what_an_arm_needs_goes_before_it_and_takes_it_along_when_it_fails() -> None:
    works = [work("dense"), work("imp", "dense"), work("random"), work("shuffled", "imp")]
    pool = Told(2, {"imp": "no memory"})
    said: list[str] = []
    failed = walk(works, pool, tell=said.append, beat=lambda: None)
    assert failed == {("imp", 0): "no memory", ("shuffled", 0): "it needs imp, which failed."}
    assert sorted(pool.submitted) == ["dense", "imp", "random"]
    assert pool.submitted.index("dense") < pool.submitted.index("imp")
    assert "imp of seed 0 failed: no memory" in said


def test_what_a_cluster_says_of_a_lost_worker_fails_that_arm_alone() -> None:
    pool = Told(1, {"dense": ConnectionError("the node died\nand more"), "other": TimeoutError()})
    failed = walk([work("dense"), work("other"), work("random")], pool, tell=print, beat=lambda: None)
    assert failed == {("dense", 0): "the node died", ("other", 0): "TimeoutError"}


def submit_two(device: str, jobs: int | None, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[Mapping[str, str]]]:
    """Return how many go at a time, and the variables of two that do."""
    together = threading.Barrier(2, timeout=10)
    places: list[Mapping[str, str]] = []

    def do(work: Work, options: Sequence[str], environment: Mapping[str, str], ending: Callable[[], object]) -> str:
        together.wait()
        places.append(environment)
        return ""

    monkeypatch.setattr(pools, "do", do)
    with Here(device, (), jobs, 4) as pool:
        for future in [pool.submit(work("a")), pool.submit(work("b"))]:
            assert future.result() == ""
    return pool.jobs, sorted(places, key=lambda place: place.get("CUDA_VISIBLE_DEVICES", ""))


def test_each_gpu_has_a_run_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    threads = {"OMP_NUM_THREADS": "4"}
    two = [threads | {"CUDA_VISIBLE_DEVICES": "3"}, threads | {"CUDA_VISIBLE_DEVICES": "5"}]
    assert submit_two("auto", None, monkeypatch) == (2, two)
    assert submit_two("cpu", 2, monkeypatch) == (2, [threads, threads])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [place["CUDA_VISIBLE_DEVICES"] for place in submit_two("auto", 2, monkeypatch)[1]] == ["0", "1"]


def test_a_node_that_has_gpus_shares_its_own_cores_among_them() -> None:
    assert pools.places([{"CPU": 64}, {"CPU": 8, "GPU": 8}], on_gpus=True, jobs=None, most=20) == (8, 1)
    assert pools.places([{"CPU": 5}, {"CPU": 3}], on_gpus=False, jobs=2, most=20) == (2, 3)
    assert pools.places([{"CPU": 0}], on_gpus=False, jobs=None, most=20) == (0, 0)
    assert pools.places([{"GPU": 1}], on_gpus=True, jobs=None, most=20) == (0, 0)


def test_leaving_by_an_exception_ends_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[signal.Signals | None] = []
    begun = threading.Event()

    def do(
        work: Work, options: Sequence[str], environment: Mapping[str, str], ending: Callable[[], signal.Signals | None]
    ) -> str:
        begun.set()
        while ending() is None:
            pass
        asked.append(ending())
        return ""

    monkeypatch.setattr(pools, "do", do)
    with pytest.raises(KeyboardInterrupt), Here("cpu", (), 1, 2) as pool:
        pool.submit(work("a"))
        never = pool.submit(work("b"))
        begun.wait()
        raise KeyboardInterrupt
    assert asked == [signal.SIGTERM] and never.cancelled()


def test_a_run_is_done_by_this_recipe_only(tmp_path: Path) -> None:
    mine = Work("imp", 0, tmp_path / "imp.yaml", tmp_path / "imp", None)
    mine.recipe.write_text("seed: 0\n")
    (mine.run / "00" / "done").mkdir(parents=True)
    (mine.run / "recipe.yaml").write_text("seed: 0\n")
    write_json(mine.run / "plan.json", [{"name": "00", "end": 2, "clock": 0}])
    assert not process.finished(mine)  # nothing says that it ended well
    (tmp_path / "imp.done").write_text("seed: 0\n")
    assert process.finished(mine)
    mine.recipe.write_text("seed: 1\n")
    assert not process.finished(mine)
    mine.recipe.write_text("seed: 0\n")
    (mine.run / "00" / "done").rmdir()
    assert not process.finished(mine)


def test_the_clock_goes_on_from_what_is_kept(tmp_path: Path) -> None:
    assert seconds_of(tmp_path) == 0
    write_json(tmp_path / "clock.json", {"seconds": 100.0})
    Clock(tmp_path).beat()
    assert 100 < seconds_of(tmp_path) < 200
    (tmp_path / "clock.json").write_text("{")
    with pytest.raises(RunError, match=r"clock.json is damaged: delete it"):
        Clock(tmp_path)


def test_a_node_sees_paths_from_where_the_study_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, elsewhere = tmp_path / "begun", tmp_path / "elsewhere"
    (begun / "studies").mkdir(parents=True)
    elsewhere.mkdir()
    (begun / "studies" / "imp.yaml").touch()
    monkeypatch.chdir(elsewhere)  # as a worker of Ray, which is where its node was started
    monkeypatch.setattr(pools, "do", lambda work, *_: "" if work.recipe.is_file() else "not there")
    work = Work("imp", 0, Path("studies/imp.yaml"), Path("studies/imp"), None)
    assert pools._do_there(work, (), 1, str(begun)) == ""
    monkeypatch.chdir(elsewhere)
    assert "does not see" in pools._do_there(work, (), 1, str(elsewhere))


def test_a_run_that_fails_again_is_not_said_to_fail_as_before(tmp_path: Path) -> None:
    mine = Work("imp", 0, tmp_path / "imp.yaml", tmp_path / "imp", None)
    codes = iter(["print('no such recipe'); raise SystemExit(2)", "import os; os.kill(os.getpid(), 9)"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "_command", lambda *_: [sys.executable, "-S", "-c", next(codes)])
        log = mine.run.with_suffix(".log")
        assert process.do(mine, (), {}, lambda: None) == f"no such recipe (exit code 2; see {log})"
        assert process.do(mine, (), {}, lambda: None) == f"it said nothing (exit code -9; see {log})"


def test_a_run_that_cannot_be_locked_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").mkdir()  # nobody holds it, and nobody can
    process._wait_for_another(tmp_path / "run", lambda: None)
