"""How fast a run goes: counted from what a watcher is told, and how that reads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from prunekit.cli.listing import first_metric
from prunekit.files import read_json
from prunekit.measure import peak_mib
from prunekit.plan import Plan, Stage

RECENT = 51  # ends of steps that the speed is taken from: a pause or a busy minute is soon forgotten


@final
@dataclass(frozen=True)
class Pace:
    """Where a run is at one moment; ``step`` of ``end`` are done; in the time left evaluations count after a first."""

    stage: str
    step: int
    end: int
    loss: float
    images_per_s: float
    stage_left_s: float
    run_left_s: float
    memory_mib: float

    @property
    def text(self) -> str:
        """All but stage and step, in at most 80 columns."""
        return (
            f"loss {self.loss:.4f}  {self.images_per_s:.1f} images/s  {self.memory_mib / 1024:.1f} GiB  "
            f"left: stage {span(self.stage_left_s)}, run {span(self.run_left_s)}"
        )


@final
class Pacer:
    """Counts steps and images, and says where the run is, not more often than every so many seconds."""

    def __init__(self, plan: Plan, every_s: float) -> None:
        self.every_s = every_s
        self.steps_left = {stage.name: max(0, stage.end - stage.start.clock) for stage in plan}
        self.recent: deque[tuple[float, int]] = deque(maxlen=RECENT)  # when a step ended, its images
        self.last_s = time.monotonic()
        self.after_s = 0.0  # from a stage's last step to its end

    def stage(self, stage: Stage, clock: int) -> None:
        """Start counting a stage's speed at step ``clock``."""
        self.steps_left[stage.name] = stage.end - clock
        self.last_s = time.monotonic()
        self.recent.clear()
        self.recent.append((self.last_s, 0))

    def step(self, stage: Stage, clock: int, loss: float, images: int) -> Pace | None:
        """Count step ``clock``; return the pace if it is due."""
        now_s = time.monotonic()
        self.recent.append((now_s, images))
        self.steps_left[stage.name] = stage.end - clock - 1
        if now_s - self.last_s < self.every_s:
            return None
        self.last_s = now_s
        gone_s = now_s - self.recent[0][0]
        per_step_s = gone_s / (len(self.recent) - 1)
        left = sum(self.steps_left.values()) * per_step_s + self.after_s * sum(map(bool, self.steps_left.values()))
        here = self.steps_left[stage.name] * per_step_s + self.after_s
        rate = sum(count for _, count in list(self.recent)[1:]) / gone_s
        return Pace(stage.name, clock + 1, stage.end, loss, rate, here, left, peak_mib())

    def done(self, stage: Stage) -> None:
        """Count a stage as finished."""
        if len(self.recent) > 1:
            self.after_s = time.monotonic() - self.recent[-1][0]
        self.steps_left[stage.name] = 0
        self.recent.clear()


@final
@dataclass(frozen=True)
class Ended:
    """What a finished stage's folder says: its facts, and the means of its first metric."""

    facts: Mapping[str, Any]
    metric: str
    means: Mapping[str, float]


def ended(folder: Path) -> Ended:
    """Read the results of a finished stage."""
    return Ended(read_json(folder / "stage.json"), *first_metric(read_json(folder / "metrics.json")))


def shares(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return what is left, by what it is a share of; in a smaller network all parameters are prunable, and MACs fall.

    Example:
        >>> shares({"structured": True, "remaining": 5, "total": 10, "macs_kept": 2, "macs_dense": 8})
        {'of all': '50.00%', 'of MACs': '25.00%'}
    """
    of_all = f"{facts['remaining'] / facts['total']:.2%}"
    if facts.get("structured"):
        return {"of all": of_all, "of MACs": f"{facts['macs_kept'] / max(1, facts['macs_dense']):.2%}"}
    return {"of prunable": f"{facts['density']:.2%}", "of all": of_all}


def span(seconds: float) -> str:
    """Return a length of time for people.

    Example:
        >>> span(45), span(200), span(7200)
        ('45 s', '3 min', '2.0 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
