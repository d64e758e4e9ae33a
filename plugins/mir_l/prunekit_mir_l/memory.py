"""How much memory some work takes, and how much there is; the latter is known on Linux."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(work: Callable[[], object]) -> int:
    """Do the work and return the bytes that the tensors made in it took at most at a time.

    They are counted, since what the process grows by depends on what it kept from before.
    """
    held = _Held()
    with held:
        work()
    return held.most


class _Held(TorchDispatchMode):
    """Counts the bytes of tensors from when an operator makes them until nothing holds them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.most: int = 0
        self._storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self._storages:
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        self._storages.add(storage._cdata)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._drop, storage._cdata, storage.nbytes())

    def _drop(self, storage: int, nbytes: int) -> None:
        self._storages.discard(storage)
        self.now -= nbytes


def available_bytes() -> int | None:
    """Return the bytes that can be had without swapping; None where the system does not tell."""
    try:
        return _field(Path("/proc/meminfo"), "MemAvailable")
    except (OSError, KeyError):
        return None


def _field(file: Path, name: str) -> int:
    fields = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
    return int(fields[name].split()[0]) * 1024
