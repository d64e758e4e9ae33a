"""The compiled kernels: found once, after torch, whose OpenMP they share; an install without a compiler has none."""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache

import torch  # noqa: F401  (before the library: both then use the one OpenMP that torch brings)


@cache
def kernels() -> ctypes.CDLL | None:
    """Return the library of ``kernels.c``, or None where it was not built."""
    found = importlib.util.find_spec("prunekit.sparse._kernels")
    if found is None or found.origin is None:
        return None
    library = ctypes.CDLL(found.origin)
    pointer, size, number = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int
    library.pk_conv.argtypes = [pointer, pointer, pointer, pointer, pointer, size, number]
    library.pk_linear.argtypes = [size, number, number, pointer, pointer, pointer, pointer, size, number]
    library.pk_conv.restype = library.pk_linear.restype = None
    return library
