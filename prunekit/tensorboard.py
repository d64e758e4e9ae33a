"""A run's curves for TensorBoard, written while it trains; no part of the run: nothing reads them back."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, final

from prunekit.errors import PruneKitError
from prunekit.files import read_json
from prunekit.plan import Stage
from prunekit.task import Measure, averages

POINTS = 1000  # about so many for a stage, however long


@final
class TensorBoard:
    """Watches a run: the loss of each stage in a folder of its own, scores and densities by stage in another.

    A stage that goes on from a checkpoint discards what was written from its step on, and scores are written anew each
    time, so no point is there twice.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as cause:
            raise PruneKitError('--tensorboard needs tensorboard: pip install "prunekit[tensorboard]".') from cause
        self._make: Any = SummaryWriter
        self.folder = folder
        self.scores: Any = SummaryWriter(str(folder / "scores"), purge_step=0)
        self.losses: Any = None
        self.place = 0

    def stage(self, stage: Stage, density: float, clock: int) -> None:
        """Open a stage's curve at step ``clock``."""
        if stage.end > clock:
            self.losses = self._make(str(self.folder / stage.name), purge_step=clock)

    def step(self, stage: Stage, clock: int, loss: float, images: int) -> None:
        """Add a point, if it is due."""
        if clock % max(1, (stage.end - stage.start.clock) // POINTS) == 0:
            self.losses.add_scalar("loss", loss, clock)

    def note(self, text: str) -> None:
        """Ignore."""

    def done(self, stage: Stage, folder: Path) -> None:
        """Add a finished stage's densities and mean scores."""
        if self.losses is not None:
            self.losses.close()
            self.losses = None
        facts = read_json(folder / "stage.json")
        self.scores.add_scalar("density of prunable", facts["density"], self.place)
        self.scores.add_scalar("density of all", facts["remaining"] / facts["total"], self.place)
        for mean in averages(Measure(**measure) for measure in read_json(folder / "metrics.json")):
            self.scores.add_scalar(f"{mean.metric}/{mean.task} {mean.dataset}", mean.value, self.place)
        self.scores.flush()
        self.place += 1

    def close(self) -> None:
        """Put everything on the disk."""
        with contextlib.suppress(OSError):
            for writer in (self.losses, self.scores):
                if writer is not None:
                    writer.close()
