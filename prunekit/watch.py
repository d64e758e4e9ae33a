"""What a run tells whoever looks on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

from prunekit.plan import Stage


class Watch(Protocol):
    """Told of everything that happens in a run; the command line draws it."""

    def stage(self, stage: Stage, density: float, clock: int) -> None:
        """A stage starts, or goes on from step ``clock``; density = kept / prunable."""

    def step(self, stage: Stage, clock: int, loss: float, images: int) -> None:
        """Step ``clock`` is done; ``images`` is this process's share of the batch."""

    def note(self, text: str) -> None:
        """Something a person should know."""

    def done(self, stage: Stage, folder: Path) -> None:
        """A stage is complete; its results are in ``folder``."""


@final
@dataclass(frozen=True)
class Watches:
    """Several that look on, told of the same; of none, it says nothing."""

    each: Sequence[Watch] = ()

    def stage(self, stage: Stage, density: float, clock: int) -> None:
        """Tell all."""
        for watch in self.each:
            watch.stage(stage, density, clock)

    def step(self, stage: Stage, clock: int, loss: float, images: int) -> None:
        """Tell all."""
        for watch in self.each:
            watch.step(stage, clock, loss, images)

    def note(self, text: str) -> None:
        """Tell all."""
        for watch in self.each:
            watch.note(text)

    def done(self, stage: Stage, folder: Path) -> None:
        """Tell all."""
        for watch in self.each:
            watch.done(stage, folder)
