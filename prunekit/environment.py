"""What a run's bits depend on besides its recipe."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, final

import torch
from accelerate import Accelerator

from prunekit.errors import RunError
from prunekit.native import level

MUST_AGREE = ("torch", "device", "cpu", "kernels", "processes", "data")


def describe(accelerator: Accelerator, data: str) -> dict[str, Any]:
    """Return versions, device, processor, threads, number of processes and the data's fingerprint."""
    device = accelerator.device
    return {
        "prunekit": version("prunekit"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": cpu_name(),
        "kernels": level(),
        "threads": torch.get_num_threads(),
        "processes": accelerator.num_processes,
        "data": data,
    }


def keep_heap() -> bool:
    """Let the C library keep freed memory instead of handing every large tensor back to the system and asking again.

    Eager PyTorch on a CPU otherwise spends much of its time on page faults. No bit of any result changes. Linux with
    glibc only.

    Returns:
        Whether it could be done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    m_trim_threshold, m_mmap_threshold, most_bytes = -1, -3, 2**30
    return bool(mallopt(m_mmap_threshold, most_bytes) and mallopt(m_trim_threshold, most_bytes))


def trim_heap() -> None:
    """Give freed memory back to the system, after something that needed much and is over. Linux with glibc only."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


@final
class Holes:
    """Gives freed memory back every so often, while something makes large tensors and small things that live on.

    Each small thing that lies where a large tensor was leaves a hole too small for the next one. The heap then grows
    with all that was ever made, far above what is in use at once.
    """

    def __init__(self) -> None:
        self._made_bytes = 0

    def add(self, made_bytes: int) -> None:
        """Count what was made; trim the heap whenever that is a quarter of a gibibyte."""
        self._made_bytes += made_bytes
        if self._made_bytes >= 2**28:
            self._made_bytes = 0
            trim_heap()


def cpu_name() -> str:
    """Return the processor's name as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123  (not a real file)
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def adopt(held: Mapping[str, Any], now: Mapping[str, Any], *, drift: bool) -> list[str]:
    """Continue under another session's environment: take over its thread count; refuse what would change the bits.

    Args:
        held: what the run was started with.
        now: this process's.
        drift: go on anyway; the result is then not bit-identical to an uninterrupted run's.

    Returns:
        What differs all the same, in words.

    Raises:
        RunError: torch, device, number of processes or data differ and ``drift`` is off.
    """
    torch.set_num_threads(int(held.get("threads", torch.get_num_threads())))
    differing = [
        f"{key} was {held[key]!r}, is {now[key]!r}" for key in MUST_AGREE if held.get(key, now[key]) != now[key]
    ]
    if differing and not drift:
        raise RunError(
            f"this run was started elsewhere: {'; '.join(differing)}. To go on, restore that, or accept results that "
            "are not bit-identical with --drift."
        )
    return differing
