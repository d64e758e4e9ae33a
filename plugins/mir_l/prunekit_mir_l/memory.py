"""How much memory some work takes, and how much there is; the latter is known on Linux."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
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


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return the bytes that can be had without swapping; None where the system does not tell.

    Args:
        root: of the file system; what a container may take (control groups, version 1 or 2) is looked up there, too.
    """
    try:
        found = [int(_fields(root / "proc/meminfo")["MemAvailable:"]) * 1024]
    except (OSError, LookupError, ValueError):
        found = []
    return min([*found, *_left_to_groups(root)], default=None)


_GROUPS = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Controllers in ``/proc/self/cgroup`` (none in version 2) -> home, limit, use, and what of that can be taken back."""


def _left_to_groups(root: Path) -> Iterator[int]:
    """Yield what is left to each group that this process is in, its own and those around it, where it has a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        for controller in {*controllers.split(",")} & _GROUPS.keys():
            home, limit, use, taken_back = _GROUPS[controller]
            own = root / home / path.lstrip("/")
            for group in (own, *(folder for folder in own.parents if folder.is_relative_to(root / home))):
                with contextlib.suppress(OSError, LookupError, ValueError):  # no such group here, or "max"
                    left = int((group / limit).read_text()) - int((group / use).read_text())
                    yield max(0, left + int(_fields(group / "memory.stat")[taken_back]))


def _fields(file: Path) -> dict[str, str]:
    return {name: value for name, value, *_ in map(str.split, file.read_text().splitlines())}
