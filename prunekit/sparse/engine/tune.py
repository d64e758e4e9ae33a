"""Tune: which way of computing is the fastest on this machine, measured once and remembered.

What was measured is kept in a file for each machine, so that neither another process nor another input of the same
shape measures again. Losing the file costs time only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import torch

from prunekit.environment import cpu_name
from prunekit.errors import Failed
from prunekit.files import write_text
from prunekit.native import best_level, kernels

ROUNDS = 5


def race(ways: Sequence[Callable[[], Any]], rounds: int = ROUNDS) -> list[float]:
    """Return the least seconds that each way took; they take turns, so that a busy machine slows all of them."""
    best = [float("inf")] * len(ways)
    for _ in range(rounds):
        for place, way in enumerate(ways):
            began_s = time.perf_counter()
            way()
            best[place] = min(best[place], time.perf_counter() - began_s)
    return best


@final
class Memo:
    """What was measured on this machine, by what it was measured for.

    Args:
        folder: of the file; None for one below the user's cache folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        base = folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prunekit"
        self._path = base / f"measured-{_machine()}.json"
        self._known: dict[str, list[float]] = {}
        self._new = False
        with contextlib.suppress(OSError, ValueError, TypeError):  # not there yet, or not what we write: measured again
            known = dict(json.loads(self._path.read_text(encoding="utf-8")))
            self._known = {key: [float(second) for second in seconds] for key, seconds in known.items()}

    def seconds(self, what: object, ways: Callable[[], Sequence[Callable[[], Any]]]) -> list[float]:
        """Return the least seconds of each way; ``ways`` is asked only where ``what`` was not measured yet."""
        key = f"{torch.get_num_threads()} {what}"
        if key not in self._known:
            self._known[key] = race(ways())
            self._new = True
        return self._known[key]

    def save(self) -> None:
        """Write what is new; a folder that cannot be written to only means measuring again."""
        if not self._new:
            return
        with contextlib.suppress(Failed):
            write_text(self._path, json.dumps(self._known, indent=0, sort_keys=True))
        self._new = False


def _machine() -> str:
    """Return a name for this processor with these kernels and this torch: with others, what was measured is void."""
    library = kernels()
    built = Path(library._name).read_bytes() if library is not None else b""
    known = f"{torch.__version__} {cpu_name()} {platform.machine()} {best_level()} {hashlib.sha256(built).hexdigest()}"
    return hashlib.sha256(known.encode()).hexdigest()[:16]
