"""Run the arms of a study, each after what it needs; one that fails stops only those that need it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

BEAT_S = 5.0


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
    works: Sequence[Work], pool: Pool, *, tell: Callable[[str], None], beat: Callable[[], None]
) -> dict[tuple[str, int], str]:
    """Do all works, ``pool.jobs`` at a time.

    Args:
        works: in an order in which they can be done.
        pool: does them.
        tell: is told of each that ends.
        beat: called every few seconds, and whenever one ends.

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
        for future in wait(busy, timeout=BEAT_S, return_when=FIRST_COMPLETED).done if busy else ():
            work = busy.pop(future)
            if problem := _outcome(future):
                failed[work.arm, work.seed] = problem
                tell(f"{work.name} failed: {problem}")
            else:
                done.add((work.arm, work.seed))
                tell(f"{work.name} is done, {len(done)} of {len(works)}.")
        beat()
    return failed


def _outcome(future: Future[str]) -> str:
    try:
        return future.result()
    except Exception as lost:  # whatever a cluster says of workers that it cannot bring back
        return (str(lost).strip() or type(lost).__name__).splitlines()[0]
