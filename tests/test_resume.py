"""kill -9 at any moment, the same command again: the same bits as without."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import toy_main

TESTS = Path(__file__).parent
RESULTS = ("weights.safetensors", "cut.safetensors", "next.safetensors", "metrics.json", "stage.json")
TASK = ("task.steps=12", "task.dropout=0.3", "task.workers=1")


# Forked by a server that has imported torch (importing it each time would take most of the time) and never trained
# (autograd's threads do not survive a fork).
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["prunekit.cli.run", "prunekit.pruner", "prunekit.shape"])


def start(out: Path, *overrides: str, kill_at: str = "nowhere:0", recipe: str = "toy") -> BaseProcess:
    arguments = ["prunekit", "run", str(TESTS / f"{recipe}.yaml"), *overrides, "--out", str(out), "--device", "cpu"]
    process = SERVER.Process(target=toy_main.run, args=(arguments, kill_at, printed(out)))
    process.start()
    return process


def printed(out: Path) -> Path:
    return out.with_name(out.name + ".txt")


def finish(out: Path, *overrides: str, recipe: str = "toy") -> str:
    process = start(out, *overrides, recipe=recipe)
    process.join(300)
    text = printed(out).read_text()
    assert process.exitcode == 0, text
    return text


def killed(out: Path, *overrides: str, kill_at: str, recipe: str = "toy") -> None:
    process = start(out, *overrides, kill_at=kill_at, recipe=recipe)
    process.join(300)
    assert process.exitcode == -signal.SIGKILL, printed(out).read_text()


def bits(out: Path, stages: int = 3) -> dict[str, str]:
    files = [file for name in RESULTS for file in out.glob(f"*/done/{name}")]
    assert len(files) == stages * len(RESULTS) - 1  # the last stage has no next cut
    files += [*out.glob("step-*.safetensors"), *out.glob("*/log.jsonl")]
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    finish(out, *TASK)
    return out


@pytest.mark.slow
def test_killed_in_an_evaluation(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    killed(out, *TASK, kill_at="evaluate:2")
    assert "continuing, 1 of 3 stages are done" in finish(out, *TASK)
    assert bits(out) == bits(whole)
    before = bits(out)
    assert "this run is complete; nothing to do" in finish(out, *TASK)
    assert bits(out) == before


STRUCTURED = (*TASK, "strategy.keep=['4.*']")  # from step 4, in part: of the weights before, some are needed again


@pytest.fixture(scope="module")
def whole_structured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("structured") / "run"
    finish(out, *STRUCTURED, recipe="toy_structured")
    return out


@pytest.mark.slow
def test_structured_killed_while_it_trains_a_smaller_network_and_between_stages(
    whole_structured: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    # published and not tidied up; then in the middle of the first smaller network
    for kill_at in ("finish:2", "step:5"):
        killed(out, *STRUCTURED, kill_at=kill_at, recipe="toy_structured")
    assert "continuing, 1 of 3 stages are done" in finish(out, *STRUCTURED, recipe="toy_structured")
    assert bits(out) == bits(whole_structured)


@pytest.mark.slow
@pytest.mark.parametrize("rewind", ["init", "reinit:3", "lr:5"])
def test_structured_kills_change_nothing_whatever_it_rewinds_to(rewind: str, tmp_path: Path) -> None:
    options = (*TASK, f"strategy.rewind={rewind}")
    finish(tmp_path / "whole", *options, recipe="toy_structured")
    for place in (
        "write:1",
        "renamed:3",
        "cut:1",
        "evaluate:2",
        "finish:1",
        "finish:2",
        "finish:3",
        "finish:4",
        "step:20",
    ):
        out = tmp_path / place.replace(":", "-")
        killed(out, *options, kill_at=place, recipe="toy_structured")
        finish(out, *options, recipe="toy_structured")
        assert bits(out) == bits(tmp_path / "whole"), place


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_twenty_kills_change_nothing(whole: Path, tmp_path: Path) -> None:
    places = [
        *("write:1", "write:2", "renamed:3", "write:5", "renamed:6", "write:9", "write:13"),
        *("cut:1", "evaluate:1", "finish:5", "step:3", "step:7", "step:12"),
    ]
    for number, place in enumerate(places):
        out = tmp_path / f"run-{number}"
        killed(out, *TASK, kill_at=place)
        finish(out, *TASK)
        assert bits(out) == bits(whole), place
    kills = len(places)
    moments = random.Random(0)
    slow = (*TASK, "task.step_s=0.1")
    began_s = time.monotonic()
    finish(tmp_path / "slow", *slow)
    whole_s = time.monotonic() - began_s
    number = 0
    while kills < 20:
        number += 1
        out = tmp_path / f"random-{number}"
        for _ in range(2):
            process = start(out, *slow)
            time.sleep(moments.uniform(0.05 * whole_s, 0.9 * whole_s))
            process.kill()  # this process alone: its loader worker lives on for a moment
            process.join()
            kills += process.exitcode == -signal.SIGKILL
        finish(out, *slow)
        assert bits(out) == bits(tmp_path / "slow")


def test_ctrl_c_saves_says_how_to_go_on_and_loses_nothing(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    overrides = (*TASK, "task.step_s=0.1")
    process = start(out, *overrides)
    while not (out / "00-1.0000" / "log.jsonl").exists():
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    text = printed(out).read_text()
    assert process.exitcode == 130, text
    assert "Go on with: prunekit run" in text
    assert "Traceback" not in text
    assert (out / "00-1.0000" / "last.safetensors").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    process = start(tmp_path / "run", *TASK, "task.nan_at=40")
    process.join(60)
    text = printed(tmp_path / "run").read_text()
    assert process.exitcode == 1, text
    assert "the loss became nan in stage 00-1.0000 at step" in text
    assert "Traceback" not in text
    assert (tmp_path / "run" / "00-1.0000" / "last.safetensors").exists()
