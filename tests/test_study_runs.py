"""Studies as people run them: what is killed, stopped or in the way, and how they go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from prunekit.store import Run

TESTS = Path(__file__).parent
COMMAND = [sys.executable, "-m", "prunekit", "study", "toy.yaml", "task.steps=6", "--device", "cpu", "--out"]


def study(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=TESTS)


@pytest.mark.slow
def test_a_mistake_costs_two_and_no_traceback(tmp_path: Path) -> None:
    done = study(tmp_path / "study", "--arms", "imp,winner")
    assert done.returncode == 2 and "no arm 'winner'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_study_killed_anywhere_goes_on_to_the_same_report(tmp_path: Path) -> None:
    options = ("--arms", "imp,shuffled", "--seeds", "2")
    assert study(tmp_path / "whole" / "study", *options).returncode == 0
    out = tmp_path / "killed" / "study"
    for done in ("seed-0/dense/00-1.0000/done", "seed-0/imp/01-0.5000/done"):
        process = subprocess.Popen([*COMMAND, str(out), *options], cwd=TESTS, stdout=subprocess.DEVNULL)
        while not (out / done).exists() and process.poll() is None:
            pass
        process.kill()
        process.wait()
    assert study(out, *options).returncode == 0
    assert (out / "study.csv").read_bytes() == (tmp_path / "whole" / "study" / "study.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_study_lets_its_runs_save_their_step(tmp_path: Path, number: int) -> None:
    out = tmp_path / "study"
    command = [*COMMAND, str(out), "--arms", "dense", "--seeds", "1", "task.step_s=0.5", "task.steps=60"]
    process = subprocess.Popen(
        command,
        cwd=TESTS,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a job in the background has none
    )
    log = out / "seed-0/dense/00-1.0000/log.jsonl"
    while not (log.exists() and log.read_bytes()) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == 130 and "Traceback" not in said
    assert "the study stopped; what is done stays done. Go on with: prunekit study toy.yaml" in said
    child = (out / "seed-0/dense.log").read_text()
    assert "Go on with: prunekit run" in child and "Traceback" not in child
    assert (out / "seed-0/dense/00-1.0000/last.safetensors").is_file()
    with closing(Run(out / "seed-0/dense")) as run:
        run.acquire()  # nobody writes there any more


@pytest.mark.slow
def test_an_arm_that_fails_stops_no_other_and_is_told(tmp_path: Path) -> None:
    out = tmp_path / "study"
    (out / "seed-0" / "random").mkdir(parents=True)
    first = study(out, "--arms", "imp", "--seeds", "1")
    assert first.returncode == 2 and "not a study" in first.stderr
    (out / "seed-0" / "random").rmdir()
    (out / "seed-0").rmdir()
    assert study(out, "--arms", "dense", "--seeds", "1").returncode == 0
    (out / "seed-0" / "imp").write_text("in the way")
    done = study(out, "--arms", "random,shuffled", "--seeds", "1")
    assert done.returncode == 1 and "2 of 4 runs failed" in done.stderr
    page = (out / "report.md").read_text()
    assert "* shuffled of seed 0: it needs imp, which failed." in page
    assert "imp is a file, not a run directory" in page
    assert "| random |" in page
