"""What one sees while a run runs: live on a terminal, plain lines in a log, nothing with ``--quiet``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from prunekit.files import read_json
from prunekit.plan import Plan, Stage
from prunekit.watch import Watch

LINE_EVERY_S = 15.0
REFRESH_S = 0.25


@contextmanager
def screen(plan: Plan, *, quiet: bool, main: bool) -> Iterator[Watch]:
    """Yield a watcher that suits the output; of several processes only the main one speaks."""
    if quiet or not main:
        yield Quiet(speaks=main)
    elif sys.stdout.isatty():
        console = Console()
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            yield Screen(plan, console, live)
    else:
        yield Screen(plan, Console(highlight=False, soft_wrap=True), None)


@final
@dataclass(frozen=True)
class Quiet:
    """Says nothing but what a person must know, on standard error; nothing at all unless it ``speaks``."""

    speaks: bool

    def stage(self, stage: Stage, density: float, clock: int) -> None:
        """Ignore."""

    def step(self, stage: Stage, clock: int, loss: float, images: int) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Print a line."""
        if self.speaks:
            sys.stderr.write(text + "\n")

    def done(self, stage: Stage, folder: Path) -> None:
        """Ignore."""


@final
class Screen:
    """Stage, step, loss, images/s and time left; above it, on a terminal, the table of what is finished."""

    def __init__(self, plan: Plan, console: Console, live: Live | None) -> None:
        self.console, self.live = console, live
        self.steps_left = {stage.name: max(0, stage.end - stage.start.clock) for stage in plan}
        self.started_s = self.last_s = time.monotonic()
        self.images = self.steps = 0
        self.finished: list[tuple[str, ...]] = []
        self.header: tuple[str, ...] = ()

    def stage(self, stage: Stage, density: float, clock: int) -> None:
        """Start counting a stage's speed."""
        self.steps_left[stage.name] = stage.end - clock
        self.started_s = self.last_s = time.monotonic()
        self.images = self.steps = 0
        if self.live is None and stage.end > clock:
            self.console.print(
                f"{stage.name}: training from step {clock} to {stage.end}, density {density:.2%} of prunable"
            )

    def step(self, stage: Stage, clock: int, loss: float, images: int) -> None:
        """Show the current step, not more often than a person can read."""
        self.images += images
        self.steps += 1
        self.steps_left[stage.name] = stage.end - clock - 1
        now_s = time.monotonic()
        if now_s - self.last_s < (REFRESH_S if self.live else LINE_EVERY_S):
            return
        self.last_s = now_s
        per_step_s = (now_s - self.started_s) / self.steps
        here, whole = self.steps_left[stage.name] * per_step_s, sum(self.steps_left.values()) * per_step_s
        line = (
            f"{stage.name}: step {clock + 1}/{stage.end}  loss {loss:.4f}  "
            f"{self.images / (now_s - self.started_s):.1f} images/s  left: stage {span(here)}, run {span(whole)}"
        )
        if self.live:
            self.live.update(self._picture(line))
        else:
            self.console.print(line)

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(Text(text), soft_wrap=True)

    def done(self, stage: Stage, folder: Path) -> None:
        """Show a finished stage's densities and scores."""
        self.steps_left[stage.name] = 0
        facts, measures = read_json(folder / "stage.json"), read_json(folder / "metrics.json")
        scores: dict[str, list[float]] = {}
        for measure in measures:
            if measure["metric"] == measures[0]["metric"]:
                scores.setdefault(measure["task"], []).append(measure["value"])
        means = {task: f"{sum(values) / len(values):.2f}" for task, values in scores.items()}
        metric = measures[0]["metric"] if measures else ""
        left = shares(facts)
        if self.live is None:
            listed = "  ".join(f"{task} {mean}" for task, mean in means.items())
            density = ", ".join(f"{share} {what}" for what, share in left.items())
            self.console.print(f"{stage.name}: done, density {density}; {metric} {listed}")
            return
        self.header = ("stage", *left, *(f"{task} {metric}" for task in means))
        self.finished.append((stage.name, *left.values(), *means.values()))
        self.live.update(self._picture(""))

    def _picture(self, line: str) -> Group:
        table = Table(*self.header, box=None, pad_edge=False)
        for row in self.finished:
            table.add_row(*row)
        return Group(table, Text(line))


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
