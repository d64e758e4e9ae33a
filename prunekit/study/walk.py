"""Run the arms of a study in processes of their own: each is a run, so it resumes as runs do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import final

from prunekit.errors import RunError
from prunekit.store import Run
from prunekit.study.arms import ARMS, DENSE

LOCKED_S = 0.5


@final
@dataclass(frozen=True)
class Work:
    """One arm of one seed: its recipe file, its run directory, and the works it waits for."""

    arm: str
    seed: int
    recipe: Path
    run: Path

    @property
    def name(self) -> str:
        """How people are told of it."""
        return f"{self.arm} of seed {self.seed}"


def walk(works: Sequence[Work], *, jobs: int, device: str, tell: Callable[[str], None]) -> dict[tuple[str, int], str]:
    """Do all works, ``jobs`` at a time, each after what it needs; one that fails stops only those that need it.

    Returns:
        (arm, seed) -> why it failed, for those that did.
    """
    failed: dict[tuple[str, int], str] = {}
    done: set[tuple[str, int]] = set()
    waiting = list(works)
    busy: dict[Future[str], Work] = {}
    with ThreadPoolExecutor(jobs) as pool:
        while waiting or busy:
            for work in list(waiting):
                needed = ARMS[work.arm].after
                if needed is not None and (needed, work.seed) in failed:
                    failed[work.arm, work.seed] = f"it needs {needed}, which failed."
                    waiting.remove(work)
                elif (needed is None or (needed, work.seed) in done) and len(busy) < jobs:
                    waiting.remove(work)
                    busy[pool.submit(_run, work, jobs, device)] = work
            for future in wait(busy, return_when=FIRST_COMPLETED).done if busy else ():
                work = busy.pop(future)
                if problem := future.result():
                    failed[work.arm, work.seed] = problem
                    tell(f"{work.name} failed: {problem}")
                else:
                    done.add((work.arm, work.seed))
                    tell(f"{work.name} is done, {len(done)} of {len(works)}.")
    return failed


def _run(work: Work, jobs: int, device: str) -> str:
    """Run one arm to its end, or on from where it stopped; return what went wrong, or nothing."""
    _wait_for_another(work.run)
    command = [sys.executable, "-m", "prunekit", "run", str(work.recipe), "--out", str(work.run), "--quiet"]
    command += ["--device", device]
    if ARMS[work.arm].after == DENSE:
        command += ["--dense", str(work.run.parent / DENSE)]
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    log = work.run.with_suffix(".log")
    with log.open("a", encoding="utf-8") as out:
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    if code == 0:
        return ""
    said = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"{said[-1] if said else 'it said nothing'} (exit code {code}; see {log})"


def _wait_for_another(path: Path) -> None:
    """Wait for the process of a study that was killed: its run goes on to the end."""
    while path.is_dir():
        with closing(Run(path)) as run:
            try:
                run.acquire()
            except RunError:
                time.sleep(LOCKED_S)
                continue
            return
