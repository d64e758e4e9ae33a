"""PruneKit: find, train and ship lottery tickets of PyTorch networks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunekit.activations import wanda
    from prunekit.allocate import erk, everywhere, per_layer
    from prunekit.amount import Density, MacDensity, Rate
    from prunekit.calibration import Calibration
    from prunekit.data import batches, generator, share
    from prunekit.errors import PruneKitError
    from prunekit.flow import synflow
    from prunekit.folder import folder_data
    from prunekit.gradients import fisher, grasp, snip, taylor
    from prunekit.groups import n_of_m, per_output
    from prunekit.imaging import ImageCall, image_call
    from prunekit.launch import run
    from prunekit.masks import Masks, hold
    from prunekit.measure import macs_per_tensor
    from prunekit.outcome import Outcome
    from prunekit.plan import Rewind, Stage, at_init, dense, gradual, iterative, one_shot
    from prunekit.pruner import Unstructured, prune
    from prunekit.rewind import recalibrate, restore, snapshot
    from prunekit.schedule import at_once, cosine, cubic, explicit, geometric, levels, linear
    from prunekit.score import lamp, magnitude, random, repeated, ticket
    from prunekit.select import prunable
    from prunekit.sensitivities import Sensitivity, sensitivity
    from prunekit.shape import Shape
    from prunekit.sparse.source import load, save
    from prunekit.sparse.ticket import Ticket
    from prunekit.structured.declare import Channels
    from prunekit.structured.pruner import Structured
    from prunekit.target import solve_total
    from prunekit.task import Measure, Sample, Task
    from prunekit.tracking import movement, track

_HOME = {
    "Calibration": "calibration",
    "Channels": "structured.declare",
    "Density": "amount",
    "ImageCall": "imaging",
    "MacDensity": "amount",
    "Masks": "masks",
    "Measure": "task",
    "Outcome": "outcome",
    "PruneKitError": "errors",
    "Rate": "amount",
    "Rewind": "plan",
    "Sample": "task",
    "Sensitivity": "sensitivities",
    "Shape": "shape",
    "Stage": "plan",
    "Structured": "structured.pruner",
    "Task": "task",
    "Ticket": "sparse.ticket",
    "Unstructured": "pruner",
    "at_init": "plan",
    "at_once": "schedule",
    "batches": "data",
    "cosine": "schedule",
    "cubic": "schedule",
    "dense": "plan",
    "erk": "allocate",
    "everywhere": "allocate",
    "explicit": "schedule",
    "fisher": "gradients",
    "folder_data": "folder",
    "generator": "data",
    "geometric": "schedule",
    "gradual": "plan",
    "grasp": "gradients",
    "hold": "masks",
    "image_call": "imaging",
    "iterative": "plan",
    "lamp": "score",
    "levels": "schedule",
    "linear": "schedule",
    "load": "sparse.source",
    "macs_per_tensor": "measure",
    "magnitude": "score",
    "movement": "tracking",
    "n_of_m": "groups",
    "one_shot": "plan",
    "per_layer": "allocate",
    "per_output": "groups",
    "prunable": "select",
    "prune": "pruner",
    "random": "score",
    "recalibrate": "rewind",
    "repeated": "score",
    "restore": "rewind",
    "run": "launch",
    "save": "sparse.source",
    "sensitivity": "sensitivities",
    "share": "data",
    "snapshot": "rewind",
    "snip": "gradients",
    "solve_total": "target",
    "synflow": "flow",
    "taylor": "gradients",
    "ticket": "score",
    "track": "tracking",
    "wanda": "activations",
}

__all__ = [
    "Calibration",
    "Channels",
    "Density",
    "ImageCall",
    "MacDensity",
    "Masks",
    "Measure",
    "Outcome",
    "PruneKitError",
    "Rate",
    "Rewind",
    "Sample",
    "Sensitivity",
    "Shape",
    "Stage",
    "Structured",
    "Task",
    "Ticket",
    "Unstructured",
    "at_init",
    "at_once",
    "batches",
    "cosine",
    "cubic",
    "dense",
    "erk",
    "everywhere",
    "explicit",
    "fisher",
    "folder_data",
    "generator",
    "geometric",
    "gradual",
    "grasp",
    "hold",
    "image_call",
    "iterative",
    "lamp",
    "levels",
    "linear",
    "load",
    "macs_per_tensor",
    "magnitude",
    "movement",
    "n_of_m",
    "one_shot",
    "per_layer",
    "per_output",
    "prunable",
    "prune",
    "random",
    "recalibrate",
    "repeated",
    "restore",
    "run",
    "save",
    "sensitivity",
    "share",
    "snapshot",
    "snip",
    "solve_total",
    "synflow",
    "taylor",
    "ticket",
    "track",
    "wanda",
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
