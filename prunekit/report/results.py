"""A run directory as plain data: what each finished stage is, costs and reaches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, final

from safetensors import SafetensorError, safe_open
from torch import Tensor

from prunekit.errors import CheckpointError, RunError
from prunekit.files import read_json, read_tensors
from prunekit.store import DONE, WORST
from prunekit.task import Mean, Measure, averages

Read = TypeVar("Read")
FACTS = (
    *("name", "structured", "density", "total", "unused", "macs_dense", "macs_kept"),
    *("kept", "prunable", "remaining", "ticket_bytes", "emptied"),
)


@final
@dataclass(frozen=True)
class StageResult:
    """A finished stage; ``unused`` is None without a step.

    Args:
        kept, prunable: prunable entries that are left, and all of them.
        remaining, total: parameters that are left, and all of them.
        per_tensor: (name, kept, prunable) of each prunable tensor, in model order.
        steps: optimiser steps of this stage's training.
        bytes: size of the weights file.
        ticket_bytes: of mask bits, kept values and all other tensors, as ``prunekit export`` writes them.
        macs_dense, macs_kept: multiply-adds of one forward pass: of the dense network, and of the cut one, those with a
            weight that was set to zero left out.
        structured: whether the cut network is a smaller one, rather than one with weights set to zero.
    """

    folder: Path
    name: str
    density: float
    total: int
    steps: int
    bytes: int
    macs_dense: int
    macs_kept: int
    seconds: float
    latency_ms: float
    peak_mib: float
    measures: tuple[Measure, ...]
    unused: Sequence[str] | None
    kept: int
    prunable: int
    remaining: int
    ticket_bytes: int
    emptied: Sequence[str]
    per_tensor: Sequence[tuple[str, int, int]]
    structured: bool = False

    @property
    def density_of_all(self) -> float:
        """Share of all parameters that is left, in [0, 1]."""
        return self.remaining / self.total

    def means(self, metric: str | None = None) -> tuple[Mean, ...]:
        """Return the means over items, of one metric or of all."""
        return averages(m for m in self.measures if metric in (None, m.metric))


def read_results(run: Path) -> list[StageResult]:
    """Read the finished stages of a run, in the plan's order.

    Raises:
        RunError: ``run`` is not a run directory, or a file in it is missing or damaged.
    """
    plan = read_plan(run)
    return [_read_stage(run / name / DONE, steps) for name, steps in plan.items() if (run / name / DONE).is_dir()]


def unfinished(run: Path) -> list[str]:
    """Return the names of the stages that are still to be done; same errors as `read_results`."""
    return [name for name in read_plan(run) if not (run / name / DONE).is_dir()]


def read_plan(run: Path) -> dict[str, int]:
    """Return stage name -> optimiser steps of its training."""
    path = run / "plan.json"
    if not path.is_file() or not (run / "recipe.yaml").is_file():
        raise RunError(f"{run} is not a run directory (no plan.json and recipe.yaml): name one that prunekit run made.")
    return parse(path, lambda stages: {str(stage["name"]): stage["end"] - stage["clock"] for stage in stages})


def parse(path: Path, build: Callable[[Any], Read]) -> Read:
    """Build a value from a JSON file; raises RunError naming one that is missing, damaged, or holds another thing."""
    try:
        return build(read_json(path))
    except (RunError, KeyError, TypeError, ValueError, AttributeError, IndexError) as cause:
        raise damaged(path) from cause


def damaged(path: Path) -> RunError:
    """Return the error for a file of a run that cannot be used."""
    if path.parent.name == DONE:
        hint = f"delete {path.parent} and give the run's command again: it repeats that stage alone."
    else:
        hint = "bring it back from a copy, or run again with another --out."
    return RunError(f"{path} is missing, truncated or not a run's: {hint}")


def read_samples(stage: StageResult) -> dict[str, tuple[str, dict[str, Tensor]]]:
    """Return task -> (item, part -> uint8 tensor of shape (height, width, 3)): the first item of each task."""
    return _first_items(stage.folder / "samples.safetensors")


def read_worst(stage: StageResult) -> dict[str, tuple[str, dict[str, Tensor]]]:
    """Return the same of the worst item of each task, where the task could picture it."""
    return _first_items(stage.folder / WORST)


def _first_items(path: Path) -> dict[str, tuple[str, dict[str, Tensor]]]:
    if not path.exists():
        return {}
    try:
        tensors = read_tensors(path)
    except CheckpointError as cause:
        raise damaged(path) from cause
    samples: dict[str, tuple[str, dict[str, Tensor]]] = {}
    for key, image in sorted(tensors.items()):
        task, _, rest = key.partition("/")
        item, _, part = rest.rpartition("/")
        first, images = samples.setdefault(task, (item, {}))
        if item == first:
            images[part] = image
    return samples


def _read_stage(folder: Path, steps: int) -> StageResult:
    weights = folder / "weights.safetensors"
    _model_order(weights)
    order = _model_order(folder / "cut.safetensors")  # JSON holds the tensors by name, cuts know their place
    cost = parse(folder / "cost.json", lambda held: {key: held[key] for key in ("seconds", "latency_ms", "peak_mib")})
    measures = parse(folder / "metrics.json", lambda held: tuple(Measure(**measure) for measure in held))

    def build(facts: Any) -> StageResult:
        counts = facts["per_tensor"]
        held = {key: value for key, value in facts.items() if key in FACTS}
        held["per_tensor"] = [(name, *counts[name]) for name in sorted(counts, key=order.__getitem__)]
        size = weights.stat().st_size
        return StageResult(folder=folder, steps=steps, bytes=size, measures=measures, **cost, **held)

    return parse(folder / "stage.json", build)


def _model_order(path: Path) -> dict[str, int]:
    """Check that a safetensors file is as long as its header says; return the model order of a cut in it, if any."""
    try:
        with safe_open(path, framework="pt") as file:
            keys = [key.partition("/") for key in file.keys()]  # noqa: SIM118  (not a dict)
            places = {name: f"{kind}/{name}" for kind, _, name in keys if kind in ("place", "size")}  # masks, shapes
            return {name: int(file.get_tensor(key)[0]) for name, key in places.items()}
    except (OSError, SafetensorError) as cause:
        raise damaged(path) from cause
