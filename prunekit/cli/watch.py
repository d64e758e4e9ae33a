"""What one sees while a run runs: live on a terminal, lines in a log, JSON for programs, nothing with ``--quiet``."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from prunekit.cli.pace import Pace, Pacer, ended, shares
from prunekit.plan import Plan, Stage
from prunekit.watch import Watch

LINE_EVERY_S = 15.0
JSON_EVERY_S = 1.0
REFRESH_S = 0.25


@contextmanager
def screen(plan: Plan, *, quiet: bool, as_json: bool, main: bool) -> Iterator[Watch]:
    """Yield a watcher that suits the output; of several processes only the main one speaks."""
    if not main or (quiet and not as_json):
        yield Quiet(speaks=main)
    elif as_json:
        yield Events(plan)
    elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI"):
        console = Console(markup=False)
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            yield Screen(plan, console, live)
    else:
        yield Lines(plan)


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
class Lines:
    """One line for each event, and every quarter of a minute one for the pace; as a log file wants it."""

    def __init__(self, plan: Plan) -> None:
        self.pacer = Pacer(plan, LINE_EVERY_S)

    def stage(self, stage: Stage, density: float, clock: int) -> None:
        """Say where a stage starts, or goes on."""
        self.pacer.stage(stage, clock)
        if stage.end > clock:
            self.note(f"{stage.name}: training from step {clock} to {stage.end}, density {density:.2%} of prunable")

    def step(self, stage: Stage, clock: int, loss: float, images: int) -> None:
        """Say the pace when it is due."""
        if pace := self.pacer.step(stage, clock, loss, images):
            self.note(f"{pace.stage}: step {pace.step}/{pace.end}  {pace.text}")

    def note(self, text: str) -> None:
        """Print a line at once."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def done(self, stage: Stage, folder: Path) -> None:
        """Say a finished stage's densities and scores."""
        self.pacer.done(stage)
        found = ended(folder)
        listed = "  ".join(f"{task} {mean:.2f}" for task, mean in found.means.items())
        density = ", ".join(f"{share} {what}" for what, share in shares(found.facts).items())
        self.note(f"{stage.name}: done, density {density}; {found.metric} {listed}")


@final
class Events:
    """One JSON object a line on standard output; ``docs/reference/runs.md`` lists them."""

    def __init__(self, plan: Plan) -> None:
        self.pacer = Pacer(plan, JSON_EVERY_S)

    def stage(self, stage: Stage, density: float, clock: int) -> None:
        """Tell where a stage starts, or goes on."""
        self.pacer.stage(stage, clock)
        tell("stage", stage=stage.name, density=density, step=clock, end=stage.end)

    def step(self, stage: Stage, clock: int, loss: float, images: int) -> None:
        """Tell the pace, about once a second."""
        if pace := self.pacer.step(stage, clock, loss, images):
            tell("step", **dataclasses.asdict(pace))

    def note(self, text: str) -> None:
        """Tell what a person should know."""
        tell("note", text=text)

    def done(self, stage: Stage, folder: Path) -> None:
        """Tell a finished stage's densities and scores."""
        self.pacer.done(stage)
        found = ended(folder)
        of_all = found.facts["remaining"] / found.facts["total"]
        density = {"density": found.facts["density"], "density_of_all": of_all}
        tell("done", stage=stage.name, **density, metric=found.metric, scores=dict(found.means))


def tell(event: str, **facts: Any) -> None:
    """Write one event as a line of JSON, at once."""
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


@final
class Screen:
    """A table of what is finished, and below it the current stage: a bar, loss, images/s, memory and time left."""

    def __init__(self, plan: Plan, console: Console, live: Live) -> None:
        self.console, self.live = console, live
        self.pacer = Pacer(plan, REFRESH_S)
        self.plan = plan
        self.rows: list[tuple[str, ...]] = []
        self.header: tuple[str, ...] = ()

    def stage(self, stage: Stage, density: float, clock: int) -> None:
        """Start counting a stage's speed."""
        self.pacer.stage(stage, clock)
        self._show(f"{stage.name}: density {density:.2%} of prunable, from step {clock}")

    def step(self, stage: Stage, clock: int, loss: float, images: int) -> None:
        """Show the current step, not more often than a person can read."""
        pace = self.pacer.step(stage, clock, loss, images)
        if clock + 1 == stage.end:
            self._show(f"{stage.name}: trained, evaluating")
        elif pace:
            self._show(pace)

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(Text(text), soft_wrap=True)

    def done(self, stage: Stage, folder: Path) -> None:
        """Add a finished stage to the table."""
        self.pacer.done(stage)
        found = ended(folder)
        left = shares(found.facts)
        self.header = ("stage", *left, *(f"{task}" for task in found.means), found.metric and f"({found.metric})")
        self.rows.append((stage.name, *left.values(), *(f"{mean:.2f}" for mean in found.means.values()), ""))
        self._show("")

    def _show(self, now: Pace | str) -> None:
        parts: list[Any] = [fitting(self.header, self.rows, self.console.width)] if self.rows else []
        if isinstance(now, Pace):
            place = [stage.name for stage in self.plan].index(now.stage) + 1
            bar = Table.grid(padding=(0, 1), expand=True)
            bar.add_column(no_wrap=True)
            bar.add_column(ratio=1)
            bar.add_column(no_wrap=True)
            counts = f"{now.step}/{now.end}, stage {place} of {len(self.plan)}"
            bar.add_row(now.stage, ProgressBar(total=max(1, now.end), completed=now.step), counts)
            parts += [bar, Text(now.text, no_wrap=True, overflow="ellipsis")]
        elif now:
            parts.append(Text(now))
        self.live.update(Group(*parts))


def fitting(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table:
    """Return a table of the columns that fit; with no room for all, 'of prunable' goes first, then the last ones."""
    places = list(range(len(header)))

    def wide() -> int:
        return sum(max(len(header[p]), *(len(row[p]) for row in rows)) + 2 for p in places) - 2

    if wide() > width and "of prunable" in header:
        places.remove(header.index("of prunable"))
    while wide() > width and len(places) > 1:
        places.pop()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place in places:
        table.add_column(header[place], justify="left" if place == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[place] for place in places))
    return table
