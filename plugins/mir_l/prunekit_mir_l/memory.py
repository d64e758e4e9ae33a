"""How much memory restoring an image takes, and how much there is; known on Linux."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

_PROCESS = Path("/proc/self")


def peak_bytes(work: Callable[[], object]) -> int | None:
    """Do the work and return by how many bytes this process grew at most; None where the system does not tell."""
    try:
        (_PROCESS / "clear_refs").write_text("5")  # forget the highest resident set so far
        before = _field(_PROCESS / "status", "VmRSS")
        work()
        return max(0, _field(_PROCESS / "status", "VmHWM") - before)
    except (OSError, KeyError):
        work()
        return None


def available_bytes() -> int | None:
    """Return the bytes that can be had without swapping; None where the system does not tell."""
    try:
        return _field(Path("/proc/meminfo"), "MemAvailable")
    except (OSError, KeyError):
        return None


def _field(file: Path, name: str) -> int:
    fields = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
    return int(fields[name].split()[0]) * 1024
