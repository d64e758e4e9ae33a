"""``prunekit run``: from a recipe's name to a finished, reported run directory."""

from __future__ import annotations

import itertools
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

from accelerate import Accelerator
from rich.console import Console

from prunekit.cli.inform import tables
from prunekit.cli.watch import screen
from prunekit.environment import adopt, describe, keep_heap
from prunekit.errors import Interrupted, PruneKitError, RecipeError
from prunekit.execute import Execution
from prunekit.files import read_json
from prunekit.job import Job, bind_job
from prunekit.measure import peak_mib
from prunekit.recipe import read_recipe
from prunekit.registry import Registry
from prunekit.report import write_report
from prunekit.store import Run, stored_plan


def run_recipe(
    name: str,
    overrides: Sequence[str],
    *,
    out: Path | None,
    fresh: bool,
    device: str,
    drift: bool,
    quiet: bool,
    dense: Path | None = None,
) -> None:
    """Run a recipe to its end, or on from where it stopped; print the table and where everything is."""
    keep_heap()
    registry = Registry.discover()
    job = bind_job(read_recipe(name, overrides, registry), registry)
    accelerator = make_accelerator(job.recipe.precision, device)
    run = Run(out or Path("runs") / f"{Path(name).stem}-{job.recipe.digest()}")
    now = describe(accelerator, job.task.fingerprint())
    with closing(run), stopping() as stop:
        if accelerator.is_main_process:
            if fresh:
                put_aside(run.path)
            run.open(job.recipe, now, stored_plan(job.plan))
        accelerator.wait_for_everyone()
        differing = adopt(read_json(run.path / "env.json"), now, drift=drift)
        with screen(job.plan, quiet=quiet, main=accelerator.is_main_process) as watch:
            for text in differing:
                watch.note(f"drifting: {text}; the result will not be bit-identical.")
            if not quiet:
                watch.note(f"{run.path}: {progress(run, job)}")
            try:
                Execution(job, run, accelerator, watch, stop.is_set, dense).walk()
            except (Interrupted, KeyboardInterrupt) as stopped:
                command = shlex.join(["prunekit", *(word for word in sys.argv[1:] if word != "--fresh")])
                raise Interrupted(f"{str(stopped) or 'stopped at once.'} Go on with: {command}") from None
    if accelerator.is_main_process:
        finish(run)


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
        RecipeError: a device that is not there.
    """
    if device not in ("auto", "cpu"):
        raise RecipeError(f"--device must be auto or cpu, not {device!r}; CUDA_VISIBLE_DEVICES chooses among GPUs.")
    return Accelerator(mixed_precision="bf16" if precision == "bf16" else "no", cpu=device == "cpu")


def put_aside(path: Path) -> None:
    """Rename an existing run directory to the first free ``PATH~N``; nothing is deleted.

    Raises:
        RunError: another process is writing there.
    """
    if (path / "recipe.yaml").exists():
        path = path.resolve()
        names = (path.with_name(f"{path.name}~{n}") for n in itertools.count(1))
        free = next(name for name in names if not name.exists())
        with closing(Run(path)) as run:
            run.acquire()
            path.rename(free)
        sys.stderr.write(f"put aside as {free}\n")


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C (or SIGTERM) into a request to stop at the next step; the second stops at once."""
    stop = threading.Event()

    def ask(signum: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        sys.stderr.write("\nstopping after this step is saved; once more to stop at once\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def finish(run: Run) -> None:
    """Print the tables of a finished run, write its report, and say where things are and what they take."""
    console = Console(soft_wrap=True)
    for table in tables(run.path):
        console.print()
        console.print(table, soft_wrap=False)
    console.print()
    try:
        console.print(f"report: {write_report(run.path)[0]}")
    except PruneKitError as problem:  # the run itself is done, and stays done
        console.print(f"report: {problem}")
    console.print(f"run:    {run.path}: {run.bytes() / 1e6:.1f} MB on disk; {peak_mib():.0f} MiB of memory at most")
