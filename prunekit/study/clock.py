"""How long a study has taken by the clock, over all its resumptions, a kill at any moment included."""

from __future__ import annotations

import time
from pathlib import Path
from typing import final

from prunekit.errors import RunError
from prunekit.files import read_json, write_json

KEPT = "clock.json"


@final
class Clock:
    """Counts from its making on, and keeps the sum beside the study; a kill loses what passed since the last beat."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / KEPT
        self._before_s = seconds_of(folder)
        self._began_s = time.monotonic()

    def beat(self) -> None:
        """Keep the time until now."""
        write_json(self._file, {"seconds": self._before_s + time.monotonic() - self._began_s})


def seconds_of(folder: Path) -> float:
    """Return the seconds that a study has taken, 0 where none are kept.

    Raises:
        RunError: the file is damaged.
    """
    file = folder / KEPT
    try:
        return float(read_json(file)["seconds"]) if file.is_file() else 0.0
    except (RunError, KeyError, TypeError, ValueError) as cause:
        raise RunError(f"{file} is damaged: delete it; the study then counts its time from now on.") from cause
