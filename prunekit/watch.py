"""What a run tells whoever looks on."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

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
