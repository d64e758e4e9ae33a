"""``prunekit run``: from a recipe's name to a finished, reported run directory."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from prunekit.cli.inform import tables
from prunekit.cli.watch import screen, tell
from prunekit.environment import keep_heap
from prunekit.errors import Interrupted, PruneKitError
from prunekit.launch import Asked, launch
from prunekit.measure import peak_mib
from prunekit.report import write_report
from prunekit.store import Run


def run_recipe(name: str, overrides: Sequence[str], asked: Asked, *, quiet: bool, as_json: bool) -> None:
    """Run a recipe to its end, or on from where it stopped; print the table and where everything is."""
    keep_heap()
    with stopping() as stop:
        try:
            run, main = launch(
                name,
                overrides,
                asked,
                watching=lambda plan, main: screen(plan, quiet=quiet, as_json=as_json, main=main),
                stop=stop.is_set,
                greet=not quiet or as_json,
            )
        except (Interrupted, KeyboardInterrupt) as stopped:
            command = shlex.join(["prunekit", *(word for word in sys.argv[1:] if word != "--fresh")])
            raise Interrupted(f"{str(stopped) or 'stopped at once.'} Go on with: {command}") from None
    if main:
        finish(run, as_json=as_json)


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


def finish(run: Run, *, as_json: bool) -> None:
    """Write a finished run's report; print its tables, and where things are and what they take."""
    problem, report = "", None
    try:
        report = write_report(run.path)[0]
    except PruneKitError as cause:  # the run itself is done, and stays done
        problem = str(cause)
    if as_json:
        tell("finished", run=str(run.path), report=report and str(report), bytes=run.bytes(), note=problem)
        return
    console = Console(soft_wrap=True, markup=False)
    for table in tables(run.path):
        console.print()
        console.print(table, soft_wrap=False)
    console.print()
    console.print(f"report: {report or problem}")
    console.print(f"page:   prunekit report {shlex.quote(str(run.path))} --html")
    console.print(f"run:    {run.path}: {run.bytes() / 1e6:.1f} MB on disk; {peak_mib():.0f} MiB of memory at most")
