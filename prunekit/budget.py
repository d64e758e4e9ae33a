"""Budgets: a block of Python that takes too long, or too much memory, is left by an error that says where it was."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from torch import nn
from torch.utils.hooks import RemovableHandle

from prunekit.errors import BudgetError
from prunekit.select import canonical

LOOK_EVERY_S = 0.05
AGAIN_AFTER_S = 2.0  # for a block that swallows every exception; long enough for those it does not swallow to clean up


@final
@dataclass
class Limit:
    """What a block is told about its budget, and tells about itself.

    Args:
        at: canonical path of the module that is being worked on, "" where there is none; to be kept up to date.
    """

    at: str = ""


@contextmanager
def budget(
    *, seconds: float | None = None, mib: float | None = None, model: nn.Module | None = None, what: str = "this"
) -> Iterator[Limit]:
    """Leave the block by an error once it takes more than it may.

    A second thread watches and raises in the one that entered, between two steps of Python: a call into C is
    waited for. Blocks may be nested. Nothing arrives after the block, and other exceptions pass.

    Args:
        seconds: most time.
        mib: most growth of the process's resident memory since the start, in MiB; where the system does not tell (it
            does on Linux), only time is watched.
        model: while the block runs, hooks keep ``at`` up to date whenever a module of it is called.
        what: what the block does, for the message, e.g. ``"finding groups"``.

    Returns:
        The handle, whose ``at`` the block may set.

    Raises:
        BudgetError: it names the module, what was spent, and the ways out.

    Example:
        >>> with budget(seconds=0.1, what="counting") as limit:  # doctest: +ELLIPSIS
        ...     limit.at = "encoder.0"
        ...     while True:
        ...         pass
        Traceback (most recent call last):
        prunekit.errors.BudgetError: counting took more than 0.1 s and was stopped at 'encoder.0': ...
    """
    limit = Limit()
    watch = _Watch(limit, what, seconds, mib)
    hooks = [] if model is None else _hooks(model, limit)
    try:
        try:
            watch.start()
            yield limit
        finally:
            watch.stop()
    except Exception as cause:
        watch.stop()  # again: ours may have come as the first one began
        if not watch.spent:
            raise
        raise BudgetError(watch.message()) from (None if isinstance(cause, watch.over) else cause)
    finally:
        for hook in hooks:
            hook.remove()
    if watch.spent:
        raise BudgetError(watch.message())


@final
class _Watch:
    """The thread that looks, and what it found.

    It raises a class of its own, so that nested ones tell theirs apart; one that arrives as the block's last step ends
    is past our reach, so it is a whole error by itself.
    """

    def __init__(self, limit: Limit, what: str, seconds: float | None, mib: float | None) -> None:
        self.over = type("Over", (BudgetError,), {"__str__": lambda _: self.message()})
        self.spent = ""
        self._at = ""
        self._limit, self._what, self._seconds, self._mib = limit, what, seconds, mib
        self._worker = ctypes.c_ulong(threading.get_ident())
        self._lock, self._left = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="prunekit-budget", daemon=True)

    def message(self) -> str:
        where = f" at {self._at!r}" if self._at else ""
        return (
            f"{self._what} took more than {self.spent} and was stopped{where}: exclude that module, declare its "
            "groups, or raise the limit."
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Make sure that nothing is raised from now on, nor waits to be."""
        with self._lock:
            self._left.set()
        if self.spent:
            _raise_in(self._worker, None)
        self._thread.join()

    def _run(self) -> None:
        began_s, before_mib, pause_s = time.monotonic(), resident_mib(), LOOK_EVERY_S
        while not self._left.wait(pause_s):
            spent = self.spent or self._spent(time.monotonic() - began_s, before_mib)
            if spent:
                with self._lock:
                    if not self._left.is_set():
                        self.spent, self._at, pause_s = spent, self._at or self._limit.at, AGAIN_AFTER_S
                        _raise_in(self._worker, self.over)

    def _spent(self, passed_s: float, before_mib: float | None) -> str:
        if self._seconds is not None and passed_s > self._seconds:
            return f"{self._seconds:g} s"
        now_mib = resident_mib()
        if self._mib is not None and before_mib is not None and now_mib is not None:
            grown_mib = now_mib - before_mib
            if grown_mib > self._mib:
                return f"{self._mib:g} MiB of memory ({grown_mib:.0f} after {passed_s:.1f} s)"
        return ""


def resident_mib() -> float | None:
    """Return the memory of this process that is resident now, in MiB; None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _raise_in(thread: ctypes.c_ulong, exception: type[BaseException] | None) -> None:
    """Let a thread's next step raise; None takes back what has not been raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None if exception is None else ctypes.py_object(exception))


def _hooks(model: nn.Module, limit: Limit) -> list[RemovableHandle]:
    """Say where a pass is: in a module from its call to its end, then in the one that it is part of."""

    def hooked(name: str, module: nn.Module) -> list[RemovableHandle]:
        def enter(module: nn.Module, args: Any) -> None:
            limit.at = name

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            limit.at = name.rpartition(".")[0]

        return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]

    return [hook for name, module in model.named_modules() for hook in hooked(canonical(name), module)]
