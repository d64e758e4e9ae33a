"""The compiled kernels: found once, after torch, whose OpenMP they use; where there are none, why."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from functools import cache
from typing import Any

import torch  # noqa: F401  (before the library, which is not linked with an OpenMP: it finds the one that torch brings)

from prunekit.errors import PruneKitError

LEVELS = (4, 3, 1)
"""Machines that there are copies of the kernels for: two levels of x86-64, and any."""
NOT_BUILT = "they were not built when prunekit was installed; get GCC or Clang, and install prunekit from source again."


def kernels() -> ctypes.CDLL | None:
    """Return the library of `sparse/kernels`, or None where there is none: `missing` says why."""
    found = _found()
    return None if isinstance(found, str) else found


def level() -> int:
    """Return which of `LEVELS` the kernels that run here are for; 0 where there are none."""
    found = kernels()
    return 0 if found is None else int(found.pk_machine(best_level()))


def missing() -> str:
    """Return why there are no kernels, and what to do; empty where there are."""
    found = _found()
    return found if isinstance(found, str) else ""


@cache
def _found() -> ctypes.CDLL | str:
    spec = importlib.util.find_spec("prunekit.sparse._kernels")
    return NOT_BUILT if spec is None or spec.origin is None else load(spec.origin)


def load(file: str) -> ctypes.CDLL | str:
    """Return the library in a file, or why it cannot be loaded."""
    try:
        library = ctypes.CDLL(file)
    except OSError as cause:
        return f"{file} does not load ({cause}); install prunekit from source again, best with GCC."
    pointer, size, number = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int
    library.pk_conv.argtypes = [pointer, pointer, pointer, pointer, pointer, size, number]
    library.pk_linear.argtypes = [size, number, number, pointer, pointer, pointer, pointer, size, number]
    library.pk_bands.argtypes = [pointer, pointer, pointer, number]
    library.pk_few.argtypes = [pointer, number, pointer]
    library.pk_depthwise.argtypes = [pointer, number, pointer, number]
    library.pk_groups.argtypes = [size, size, number, number, pointer, pointer, pointer, number]
    library.pk_machine(best_level())
    library.pk_conv.restype = library.pk_linear.restype = None
    library.pk_bands.restype = library.pk_few.restype = library.pk_depthwise.restype = None
    library.pk_groups.restype = number
    return library


def best_level() -> int:
    """Return the level of x86-64 that the kernels may use at most: 4, or what ``PRUNEKIT_X86_64_LEVEL`` says.

    Raises:
        PruneKitError: the variable is none of `LEVELS`.
    """
    asked = os.environ.get("PRUNEKIT_X86_64_LEVEL", "4")
    if asked not in map(str, LEVELS):
        raise PruneKitError(f"PRUNEKIT_X86_64_LEVEL is {asked!r}; set it to 4 (AVX-512), 3 (AVX2) or 1, or unset it.")
    return int(asked)


def library() -> Any:
    """Return the library; to be called where `kernels` is known to return one."""
    found = kernels()
    assert found is not None, "ask kernels() first"
    return found
