"""One arm of a study in a process of its own: it is a run, so it resumes as runs do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from signal import Signals

from prunekit.errors import RunBusy, RunError
from prunekit.files import write_text
from prunekit.report.results import unfinished
from prunekit.store import Run
from prunekit.study.arms import is_dense
from prunekit.study.walk import Work

POLL_S = 0.2
MARK = ".done"
"""Of a file beside a run that is complete: a copy of the recipe that made it."""


def do(work: Work, options: Sequence[str], environment: Mapping[str, str], ending: Callable[[], Signals | None]) -> str:
    """Run one arm to its end, or on from where it stopped.

    Args:
        work: the arm.
        options: of ``prunekit run``, beside its recipe and place.
        environment: variables to be set for it.
        ending: returns the signal that the process is to be sent, or None while it may go on.

    Returns:
        What went wrong, or nothing.
    """
    if finished(work):
        return ""
    _wait_for_another(work.run, ending)
    if ending() is not None:
        return "stopped before it began"
    log = work.run.with_suffix(".log")
    with log.open("a", encoding="utf-8") as out:
        before = out.tell()
        code = _run(_command(work, options), {**os.environ, **environment}, out.fileno(), ending)
    if code == 0:
        write_text(_mark(work), work.recipe.read_text(encoding="utf-8"))
        return ""
    text = log.read_bytes()[before:].decode(errors="replace")  # what earlier tries said is not why this one failed
    said = [line for line in text.splitlines() if line.strip()]
    return f"{said[-1] if said else 'it said nothing'} (exit code {code}; see {log})"


def finished(work: Work) -> bool:
    """Tell whether this arm's run is complete, by this very recipe: then no process need look at it."""
    mark = _mark(work)
    same = mark.is_file() and mark.read_bytes() == work.recipe.read_bytes()
    return same and (work.run / "recipe.yaml").is_file() and not unfinished(work.run)


def _mark(work: Work) -> Path:
    return work.run.with_suffix(MARK)


def _command(work: Work, options: Sequence[str]) -> list[str]:
    command = [sys.executable, "-m", "prunekit", "run", str(work.recipe), "--out", str(work.run), "--quiet", *options]
    if work.after is not None and is_dense(work.after):
        command += ["--dense", str(work.run.parent / work.after)]
    return command


def _run(command: list[str], environment: Mapping[str, str], out: int, ending: Callable[[], Signals | None]) -> int:
    # A process group of its own, so that Ctrl-C reaches the study alone, which tells its runs once.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment, process_group=0
    )
    sent: Signals | None = None
    try:
        while True:
            try:
                return process.wait(POLL_S)
            except subprocess.TimeoutExpired:
                if (signal := ending()) is not None and signal != sent:
                    process.send_signal(signal)
                    sent = signal
    except BaseException:  # as a cluster ends its workers
        process.terminate()
        process.wait()
        raise


def _wait_for_another(path: Path, ending: Callable[[], Signals | None]) -> None:
    """Wait for the process of a study that was killed: its run goes on to the end."""
    while path.is_dir() and ending() is None:
        with closing(Run(path)) as run:
            try:
                run.acquire()
            except RunBusy:
                time.sleep(POLL_S)
                continue
            except RunError:  # the run will say so itself
                return
            return
