"""Run the arms of a study in processes of their own: each is a run, so it resumes as runs do."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

from prunekit.errors import RunError
from prunekit.store import Run
from prunekit.study.arms import is_dense

LOCKED_S = 0.5


@final
@dataclass(frozen=True)
class Work:
    """One arm of one seed: its recipe file, its run directory, and the arm of this seed that must be done before."""

    arm: str
    seed: int
    recipe: Path
    run: Path
    after: str | None

    @property
    def name(self) -> str:
        """How people are told of it."""
        return f"{self.arm} of seed {self.seed}"


class Pool(Protocol):
    """Where works are done: on this machine, or on a cluster."""

    jobs: int

    def submit(self, work: Work) -> Future[str]:
        """Do the work some time; the result is what went wrong, or nothing."""


def walk(
    works: Sequence[Work], pool: Pool, *, tell: Callable[[str], None], each_done: Callable[[], None]
) -> dict[tuple[str, int], str]:
    """Do all works, ``pool.jobs`` at a time, each after what it needs; one that fails stops only those that need it.

    Args:
        works: in an order in which they can be done.
        pool: does them.
        tell: is told of each that ends.
        each_done: called then.

    Returns:
        (arm, seed) -> why it failed, for those that did.
    """
    failed: dict[tuple[str, int], str] = {}
    done: set[tuple[str, int]] = set()
    waiting = list(works)
    busy: dict[Future[str], Work] = {}
    while waiting or busy:
        for work in list(waiting):
            if work.after is not None and (work.after, work.seed) in failed:
                failed[work.arm, work.seed] = f"it needs {work.after}, which failed."
                waiting.remove(work)
            elif (work.after is None or (work.after, work.seed) in done) and len(busy) < pool.jobs:
                waiting.remove(work)
                busy[pool.submit(work)] = work
        for future in wait(busy, return_when=FIRST_COMPLETED).done if busy else ():
            work = busy.pop(future)
            each_done()
            if problem := future.result():
                failed[work.arm, work.seed] = problem
                tell(f"{work.name} failed: {problem}")
            else:
                done.add((work.arm, work.seed))
                tell(f"{work.name} is done, {len(done)} of {len(works)}.")
    return failed


def do(work: Work, device: str, environment: Mapping[str, str]) -> str:
    """Run one arm to its end, or on from where it stopped.

    Args:
        work: the arm.
        device: as ``prunekit run --device`` takes it.
        environment: variables to be set for it.

    Returns:
        What went wrong, or nothing.
    """
    _wait_for_another(work.run)
    command = [sys.executable, "-m", "prunekit", "run", str(work.recipe), "--out", str(work.run), "--quiet"]
    command += ["--device", device]
    if work.after is not None and is_dense(work.after):
        command += ["--dense", str(work.run.parent / work.after)]
    log = work.run.with_suffix(".log")
    with log.open("a", encoding="utf-8") as out:
        held = {**os.environ, **environment}
        code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env=held, check=False).returncode
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
