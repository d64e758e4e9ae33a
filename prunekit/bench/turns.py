"""Interleaved runs: every backend in a process of its own, asked in turn for one pass at a time."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from prunekit.bench.backends import Job, choose, known_backends
from prunekit.bench.client import Asked, Worker
from prunekit.bench.counts import count_macs, measure_sizes, this_machine
from prunekit.bench.cuts import choose_densities
from prunekit.bench.result import DENSE, SPARSE, Bench, Case, Row, Setting, Shape
from prunekit.errors import Failed, RecipeError

Say = Callable[[str], None]
PAUSE_S = 0.02  # the threads of an engine spin for a while after its pass, on cores that the next one needs


def bench(
    source: str | Path,
    *,
    stage: str | None = None,
    network: str | Mapping[str, Any] | None = None,
    shapes: Sequence[Shape] = (),
    backends: Sequence[str] = (),
    threads: Sequence[int] = (),
    densities: Sequence[float] = (),
    runs: int = 7,
    progress: Say = lambda text: None,
) -> Bench:
    """Measure what a network costs: size, multiply-adds, and time, memory and error in every engine at hand.

    Args:
        source, stage, network: as for `prunekit.load`.
        shapes: of the inputs, with batch axis; by default the ticket's own, and for images twice its height and width.
        backends: names as in the table; by default all whose packages are installed.
        threads: of every engine; by default as many as PyTorch takes.
        densities: shares of the prunable weights, in (0, 1], at which ``prunekit`` runs: the source is cut further,
            per layer by magnitude. By default as it is, which is how engines run that multiply with zeros anyway.
        runs: timed passes for each row.
        progress: called with a line of text before each thing that may take long.

    Returns:
        A row for each backend, shape, number of threads and, where it matters, density; one that failed says why.

    Raises:
        RecipeError: an option is wrong, or a backend that was asked for is not installed.
        PruneKitError: as `prunekit.load` and ``Ticket.model``.

    Example:
        >>> linear = {"name": "python:torch.nn:Linear", "in_features": 4, "out_features": 2}
        >>> found = bench("linear", network=linear, shapes=[(1, 4)], backends=["eager"], threads=[1], runs=3)
        >>> [(str(row.case), len(row.times_ms), row.difference) for row in found.rows]
        [('eager at 1x4, 1 thread', 3, 0.0)]
    """
    import torch

    from prunekit.sparse.before import before
    from prunekit.sparse.source import load

    if runs < 1 or min(threads, default=1) < 1:
        raise RecipeError("--runs and --threads must be at least 1.")
    chosen, missing = choose(backends)
    ticket = load(source, stage=stage, network=network).masked()
    asked, own = choose_densities(ticket, densities), ticket.masks.density
    model, dtype, trained = ticket.model(), ticket.about.input_dtype, ticket.trained
    progress("counting parameters, bytes and multiply-adds")
    costs = count_macs(ticket, model, shapes)
    runs_at = {SPARSE: asked, DENSE: (1.0,)}
    by_setting: dict[Setting, list[Case]] = {
        (shape, count): [Case(name, shape, count, d) for name in chosen for d in runs_at.get(name, (own,))]
        for shape in costs
        for count in dict.fromkeys(threads or (torch.get_num_threads(),))
    }
    used = sorted({case.density for cases in by_setting.values() for case in cases}, reverse=True)
    sizes, macs = measure_sizes(ticket, model, used, costs)
    once = before(ticket, list(costs))
    del ticket, model
    with tempfile.TemporaryDirectory(prefix="prunekit-bench-") as folder:
        job = Job(str(source), stage, network, "", next(iter(costs)), own, dtype, 1, str(Path(folder, "network.onnx")))
        rows = _rows(job, by_setting, runs, Path(folder), progress)
    return Bench(str(source), sizes, macs, this_machine(chosen), rows, missing, trained, once)


def _rows(
    job: Job, by_setting: Mapping[Setting, Sequence[Case]], runs: int, folder: Path, progress: Say
) -> tuple[Row, ...]:
    """Measure setting after setting, so that no more processes wait in memory than are compared with each other."""
    unexported = _export(job, by_setting, folder / "export.log", progress)
    rows: list[Row] = []
    for number, cases in enumerate(by_setting.values()):
        place = folder / str(number)
        place.mkdir()
        rows += _interleaved(job, cases, runs, place, progress, unexported)
    return tuple(rows)


def _interleaved(job: Job, cases: Sequence[Case], runs: int, folder: Path, progress: Say, unexported: str) -> list[Row]:
    """Start a worker for each case, measure, and end them, however that goes."""
    workers: dict[Case, Asked] = {}
    peaks: dict[Case, float] = {}
    failures: dict[Case, str] = {}
    references = dict.fromkeys(case.reference for case in cases if case.reference not in cases)
    outputs = {case: folder / f"{number}.npy" for number, case in enumerate((*cases, *references))}
    with ExitStack() as alive:
        for case, output in outputs.items():
            known = f"the right output at density {case.density:.3g}, from eager"
            progress(known if case in references else f"preparing {case}")
            try:
                if unexported and known_backends()[case.backend].packages:
                    raise Failed(unexported)
                mine = replace(job, backend=case.backend, shape=case.shape, threads=case.threads, density=case.density)
                with ExitStack() as unready:
                    worker = unready.enter_context(Worker(output.with_suffix(".log")))
                    peak = worker.ask({"do": "prepare", "job": asdict(mine), "output": str(output)})
                    if case in references:
                        continue  # its output is all that we want of it
                    peaks[case], workers[case] = peak, worker
                    alive.enter_context(unready.pop_all())
            except Failed as failure:
                failures[case] = str(failure)
        times = take_turns(workers, runs, failures, progress)
    errors = {case: _difference(outputs[case], outputs[case.reference]) for case in workers}
    return [
        Row(case, tuple(times.get(case, ())), peaks.get(case), errors.get(case), failures.get(case, ""))
        for case in cases
    ]


def _export(job: Job, by_setting: Mapping[Setting, Sequence[Case]], log: Path, progress: Say) -> str:
    """Let a worker write the ONNX file if a backend reads it; return why it could not."""
    if not any(known_backends()[case.backend].packages for cases in by_setting.values() for case in cases):
        return ""
    progress("exporting to ONNX")
    try:
        with Worker(log) as worker:
            worker.ask({"do": "export", "job": asdict(job)})
    except Failed as failure:
        return f"the export to ONNX failed: {failure}"
    return ""


def take_turns(
    workers: Mapping[Case, Asked], runs: int, failures: dict[Case, str], progress: Say
) -> dict[Case, list[float]]:
    """Time one pass of each worker, then the next of each, so that whatever slows the machine down hits all alike.

    Args:
        failures: gets the reason of a worker that fails; its times so far are dropped, and the others go on.

    Returns:
        The ``runs`` times of each worker in ms.
    """
    times: dict[Case, list[float]] = {case: [] for case in workers}
    progress(f"measuring, {runs} rounds")
    for round_ in range(runs):
        began_s = time.perf_counter()
        for case in list(times):
            time.sleep(PAUSE_S)
            try:
                times[case].append(workers[case].ask({"do": "run"}))
            except Failed as failure:
                failures[case] = str(failure)
                del times[case]
        if round_ == 0 and runs > 1:
            progress(f"measuring, {runs} rounds of {time.perf_counter() - began_s:.1f} s")
    return times


def _difference(output: Path, reference: Path) -> float | None:
    """Return the largest absolute difference of two outputs, nan where one is or their sizes differ."""
    import numpy as np

    if not reference.exists():
        return None
    mine, theirs = np.load(output), np.load(reference)
    if mine.shape != theirs.shape:
        return math.nan
    return float(np.max(np.abs(mine.astype(np.float64) - theirs), initial=0))
