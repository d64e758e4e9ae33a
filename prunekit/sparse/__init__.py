"""What makes a pruned network small on disk and fast on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunekit.sparse.runtime import compile

__all__ = ["compile"]


def __getattr__(name: str) -> Any:
    if name != "compile":
        raise AttributeError(f"module 'prunekit.sparse' has no attribute {name!r}")
    from prunekit.sparse.runtime import compile

    return compile
