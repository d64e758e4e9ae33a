"""Runs as the command line and Python start them: from a recipe's name to a finished run directory."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, is_initialized

from prunekit.environment import adopt, describe
from prunekit.errors import RecipeError
from prunekit.execute import Execution
from prunekit.files import read_json
from prunekit.job import Job, bind_job
from prunekit.outcome import Outcome, read_outcome
from prunekit.plan import Plan
from prunekit.recipe import read_recipe
from prunekit.registry import Registry
from prunekit.store import Run, stored_plan
from prunekit.tensorboard import TensorBoard
from prunekit.watch import Watch, Watches


@final
@dataclass(frozen=True)
class Asked:
    """What a run is asked for beside its recipe; as the options of ``prunekit run``."""

    out: Path | None = None
    fresh: bool = False
    device: str = "auto"
    drift: bool = False
    dense: Path | None = None
    tensorboard: bool = False


Watching = Callable[[Plan, bool], AbstractContextManager[Watch]]
"""Makes what looks on, of a plan and of whether this is the main process."""


def launch(
    name: str,
    overrides: Sequence[str],
    asked: Asked,
    *,
    watching: Watching,
    stop: Callable[[], bool],
    greet: bool = True,
) -> tuple[Run, bool]:
    """Run a recipe to its end, or on from where it stopped.

    Args:
        name, overrides: as on the command line.
        asked: the options.
        watching: who looks on.
        stop: asked after every step.
        greet: whether the watcher is told where the run stands.

    Returns:
        The run, closed, and whether this is the main process.
    """
    registry = Registry.discover()
    job = bind_job(read_recipe(name, overrides, registry), registry)
    accelerator = make_accelerator(job.recipe.precision, asked.device)
    main = bool(accelerator.is_main_process)
    run = Run(asked.out or Path("runs") / f"{Path(name).stem}-{job.recipe.digest()}")
    now = describe(accelerator, job.task.fingerprint())
    with closing(run):
        if main:
            aside = put_aside(run.path) if asked.fresh else None
            run.open(job.recipe, now, stored_plan(job.plan))
        accelerator.wait_for_everyone()
        differing = adopt(read_json(run.path / "env.json"), now, drift=asked.drift)
        with watching(job.plan, main) as shown, _curves(run.path, asked.tensorboard and main) as curves:
            if main and aside is not None:
                shown.note(f"put aside as {aside}")
            for text in differing:
                shown.note(f"drifting: {text}; the result will not be bit-identical.")
            if greet:
                shown.note(f"{run.path}: {progress(run, job)}")
            Execution(job, run, accelerator, Watches((shown, *curves)), stop, asked.dense).walk()
    return run, main


@contextmanager
def _curves(run: Path, wanted: bool) -> Iterator[Sequence[Watch]]:
    """Yield the watcher that writes for TensorBoard, if it is wanted."""
    if not wanted:
        yield ()
        return
    with closing(TensorBoard(run / "tensorboard")) as curves:
        yield (curves,)


def run(
    recipe: str | Path,
    *,
    out: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    fresh: bool = False,
    device: str = "auto",
    drift: bool = False,
    dense: str | Path | None = None,
    tensorboard: bool = False,
    watch: Watch | None = None,
) -> Outcome:
    """Run a recipe to its end, or on from where it stopped: what ``prunekit run`` does, without printing anything.

    The thread count is the run's meanwhile, as bits depend on it, and the caller's again afterwards.

    Args:
        recipe: a registered name (see ``prunekit list``), or a YAML file.
        out: run directory; ``runs/RECIPE-HASH`` by default.
        overrides: key of the recipe -> value, such as ``{"task.steps": 200, "seed": 1}``.
        fresh: put an existing run aside and start again; nothing is deleted.
        device: ``"auto"`` or ``"cpu"``.
        drift: go on although torch, device or data changed.
        dense: a run whose dense stage is taken over.
        tensorboard: write curves for TensorBoard into ``out/tensorboard``.
        watch: told of every step (see ``prunekit.watch.Watch``).

    Returns:
        The run's directory and its results as tables.

    Raises:
        PruneKitError: as the command line's errors; ``Failed`` where the loss is not finite or the disk is full.

    Example:
        >>> result = run("digits", out="runs/digits")  # doctest: +SKIP
        >>> result.scores[-1]["value"]  # doctest: +SKIP
        0.9978
    """
    words = [f"{key}={json.dumps(value, ensure_ascii=False, default=str)}" for key, value in (overrides or {}).items()]
    asked = Asked(_path(out), fresh, device, drift, _path(dense), tensorboard)
    threads, foreign = torch.get_num_threads(), is_initialized()

    @contextmanager
    def watching(plan: Plan, main: bool) -> Iterator[Watch]:
        yield Watches((watch,) if watch is not None and main else ())

    try:
        done, _ = launch(str(recipe), words, asked, watching=watching, stop=lambda: False, greet=False)
    finally:
        torch.set_num_threads(threads)
        if not foreign:  # accelerate keeps device and precision for the whole process; the next run may want others
            AcceleratorState._reset_state(reset_partial_state=True)
            GradientState._reset_state()
    return read_outcome(done.path)


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def progress(run: Run, job: Job) -> str:
    """Say where a run stands, in words."""
    done = sum(run.done(stage) is not None for stage in job.plan)
    begun = done or any((run.folder(stage) / "log.jsonl").exists() for stage in job.plan)
    if done == len(job.plan):
        return "this run is complete; nothing to do (--fresh starts it again)."
    return f"continuing, {done} of {len(job.plan)} stages are done." if begun else f"{len(job.plan)} stages to do."


def make_accelerator(precision: str, device: str) -> Accelerator:
    """Return accelerate's view of device, precision and processes.

    Raises:
        RecipeError: a device that is not there, or accelerate was started otherwise in this process.
    """
    if device not in ("auto", "cpu"):
        raise RecipeError(f"--device must be auto or cpu, not {device!r}; CUDA_VISIBLE_DEVICES chooses among GPUs.")
    try:
        return Accelerator(mixed_precision="bf16" if precision == "bf16" else "no", cpu=device == "cpu")
    except ValueError as cause:  # another one was made in this process, and it is for all
        raise RecipeError(
            f"accelerate was started in this process with another device or precision: {cause} Run it in a process of "
            "its own."
        ) from cause


def put_aside(path: Path) -> Path | None:
    """Rename an existing run directory to the first free ``PATH~N``, and return that; nothing is deleted.

    Raises:
        RunError: another process is writing there.
    """
    if not (path / "recipe.yaml").exists():
        return None
    path = path.resolve()
    names = (path.with_name(f"{path.name}~{n}") for n in itertools.count(1))
    free = next(name for name in names if not name.exists())
    with closing(Run(path)) as run:
        run.acquire()
        path.rename(free)
    return free
