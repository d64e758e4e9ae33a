"""PruneKit: find, train and ship lottery tickets of PyTorch networks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunekit.allocate import everywhere, per_layer
    from prunekit.data import batches, generator, share
    from prunekit.errors import PruneKitError
    from prunekit.masks import Masks, hold
    from prunekit.plan import Rewind, Stage, gradual, iterative
    from prunekit.pruner import Unstructured, prune, solve_total
    from prunekit.rewind import recalibrate, restore, snapshot
    from prunekit.schedule import Density, Rate, cubic, explicit, geometric, levels, linear
    from prunekit.score import magnitude, random, ticket
    from prunekit.select import prunable
    from prunekit.sparse.source import load, save
    from prunekit.sparse.ticket import Ticket
    from prunekit.task import Measure, Sample, Task

_HOME = {
    "Density": "schedule",
    "Masks": "masks",
    "Measure": "task",
    "PruneKitError": "errors",
    "Rate": "schedule",
    "Rewind": "plan",
    "Sample": "task",
    "Stage": "plan",
    "Task": "task",
    "Ticket": "sparse.ticket",
    "Unstructured": "pruner",
    "batches": "data",
    "cubic": "schedule",
    "everywhere": "allocate",
    "explicit": "schedule",
    "generator": "data",
    "geometric": "schedule",
    "gradual": "plan",
    "hold": "masks",
    "iterative": "plan",
    "levels": "schedule",
    "linear": "schedule",
    "load": "sparse.source",
    "magnitude": "score",
    "per_layer": "allocate",
    "prunable": "select",
    "prune": "pruner",
    "random": "score",
    "recalibrate": "rewind",
    "restore": "rewind",
    "save": "sparse.source",
    "share": "data",
    "snapshot": "rewind",
    "solve_total": "pruner",
    "ticket": "score",
}

__all__ = [
    "Density",
    "Masks",
    "Measure",
    "PruneKitError",
    "Rate",
    "Rewind",
    "Sample",
    "Stage",
    "Task",
    "Ticket",
    "Unstructured",
    "batches",
    "cubic",
    "everywhere",
    "explicit",
    "generator",
    "geometric",
    "gradual",
    "hold",
    "iterative",
    "levels",
    "linear",
    "load",
    "magnitude",
    "per_layer",
    "prunable",
    "prune",
    "random",
    "recalibrate",
    "restore",
    "save",
    "share",
    "snapshot",
    "solve_total",
    "ticket",
]


def __getattr__(name: str) -> Any:
    # Public names load on first use: `import prunekit` and the command line's help must not wait for torch.
    if name == "sparse":  # so that `prunekit.sparse.compile` needs no import of its own
        return importlib.import_module("prunekit.sparse")
    if name not in _HOME:
        raise AttributeError(f"module 'prunekit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"prunekit.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
