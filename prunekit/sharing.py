"""The dense stage of one run, taken over by others that differ only in what they cut and when."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from prunekit.errors import RunError
from prunekit.files import write_atomic
from prunekit.job import Job
from prunekit.store import DONE, WORST, check_shared, done_stages, read_recipe_file

COPIED = ("weights.safetensors", "samples.safetensors", WORST, "metrics.json", "cost.json")
"""Results that do not depend on what is cut afterwards; a task without pictures has no samples."""


def dense_results(job: Job, dense: Path, steps: Iterable[int]) -> Path:
    """Return the folder of a run's dense results, if this job would train the very same.

    Args:
        job: the run that wants them.
        dense: the run that has them.
        steps: whose weights the job will rewind to; ``dense`` must have kept them.

    Raises:
        RunError: it is of another task, seed, precision or weights, or was trained for another number of steps; it has
            not finished its dense stage, or did not keep a step; or the job cuts while it trains.
    """
    check_shared(read_recipe_file(dense / "recipe.yaml"), job.recipe, dense)
    stage = job.plan[0]
    if job.tracks or any(step < stage.end for step, _ in stage.prune_at):
        raise RunError(f"--dense {dense}: this recipe looks at, or cuts within, its dense training; leave --dense out.")
    if not stage.end:
        raise RunError(f"--dense {dense}: this recipe trains no dense network; leave --dense out.")
    found = done_stages(dense).get(stage.name)
    if found is None:
        raise RunError(f"--dense {dense}: its stage {stage.name} is not done; give that run's command again first.")
    for step in steps:
        if not (dense / f"step-{step}.safetensors").is_file():
            raise RunError(
                f"--dense {dense}: it has not kept the weights of step {step}, which this recipe rewinds to: name "
                f"a run with strategy={{name: dense, keep_steps: [{step}]}}."
            )
    return found


def copy_dense(dense: Path, into: Path) -> None:
    """Copy the results that depend on no cut into a folder that is being filled."""
    for name in COPIED:
        if (dense / name).is_file():
            shutil.copyfile(dense / name, into / name)


def copy_beside(source: Path, target: Path) -> None:
    """Copy a file of one run to its place in another, in one step."""
    if source.is_file() and not target.exists():
        write_atomic(target, lambda temporary: shutil.copyfile(source, temporary))


def log_of(results: Path) -> Path:
    """Return the training log that belongs to a stage's results."""
    assert results.name == DONE
    return results.parent / "log.jsonl"
