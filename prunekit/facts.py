"""The facts of a finished stage: what its cut keeps, by every denominator, and what the network then costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from prunekit.bits import packed_bytes
from prunekit.job import Job
from prunekit.measure import count_macs, macs_per_tensor
from prunekit.plan import Stage
from prunekit.pruner import Cut
from prunekit.rewind import snapshot
from prunekit.select import parameters
from prunekit.shape import Shape


def facts_of(job: Job, stage: Stage, cut: Cut, unused: Sequence[str] | None) -> dict[str, Any]:
    """Return what ``stage.json`` holds; `prunekit.report.results.StageResult` says what each fact is.

    Args:
        job, stage: what was run.
        cut: the cut that the stage has trained.
        unused: names of parameters that never had a gradient; None without a step.
    """
    dense, left = job.model(), job.model()  # not the trained one: autocast would hide its weights from the counter
    cut.apply_(left)
    kept = {name: kept for name, (kept, _) in cut.per_tensor().items()}
    total = sum(parameter.numel() for parameter in dense.parameters())
    example = job.task.example()
    facts = {
        "name": stage.name,
        "structured": isinstance(cut, Shape),
        "density": cut.density,
        "total": total,
        "remaining": total - cut.prunable + cut.kept,
        "prunable": cut.prunable,
        "kept": cut.kept,
        "emptied": list(cut.emptied()),
        "per_tensor": {name: list(counts) for name, counts in cut.per_tensor().items()},
        "unused": unused,
        "ticket_bytes": sum(
            packed_bytes(tensor.numel(), kept.get(name, tensor.numel()), tensor.element_size())
            for name, tensor in snapshot(left).items()
        ),
        "macs_dense": count_macs(dense, example).dense,
        "macs_kept": _macs(left, example, kept),
    }
    if isinstance(example, Tensor):
        facts["input"] = {"shape": list(example.shape), "dtype": str(example.dtype).removeprefix("torch.")}
    return facts


def _macs(model: nn.Module, example: Any, kept: dict[str, int]) -> int:
    """Return the multiply-adds of a cut model, those with a weight that was set to zero left out."""
    sizes = {name: parameter.numel() for name, parameter in parameters(model).items()}
    return sum(
        round(macs.dense * kept.get(name, sizes[name]) / sizes[name]) if name else macs.dense
        for name, macs in macs_per_tensor(model, example).items()
    )
