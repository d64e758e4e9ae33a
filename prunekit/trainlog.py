"""A stage's training log: one JSON object a line, cut back to the checkpoint when training resumes."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import final

from prunekit.files import refused, write_text

LINES = 1000  # about so many for a stage, however long


@final
class TrainLog:
    """Loss and learning rate of every n-th step, appended to ``path``; steps = length of the stage's training."""

    def __init__(self, path: Path, *, steps: int) -> None:
        self._path = path
        self._every = max(1, steps // LINES)
        self._file: TextIOWrapper | None = None

    def write(self, clock: int, loss: float, lr_factor: float) -> None:
        """Log step ``clock`` if it is due."""
        if clock % self._every:
            return
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("a", encoding="utf-8")
            self._file.write(json.dumps({"clock": clock, "loss": loss, "lr_factor": lr_factor}) + "\n")
            self._file.flush()
        except OSError as cause:
            raise refused(self._path, cause) from cause

    def sync(self) -> None:
        """Put everything written so far on the disk."""
        try:
            if self._file is not None:
                os.fsync(self._file.fileno())
        except OSError as cause:
            raise refused(self._path, cause) from cause

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        with suppress(OSError):  # a full disk has been told of by then
            if file is not None:
                file.close()

    def cut_back(self, clock: int) -> None:
        """Drop what was logged from step ``clock`` on, and a line that a crash has torn; those steps come again."""
        self.close()
        if self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines()
            write_text(self._path, "".join(f"{line}\n" for line in lines if _clock(line) < clock))


def _clock(line: str) -> float:
    try:
        return float(json.loads(line)["clock"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
