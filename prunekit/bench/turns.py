"""One interleaved run: every backend at every shape in a process of its own, asked in turn for one pass at a time."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunekit.bench.backends import Job, choose, known_backends
from prunekit.bench.client import Asked, Worker
from prunekit.bench.result import REFERENCE, Bench, Machine, Row, Shape, Size, shape_text
from prunekit.errors import Failed, RecipeError

if TYPE_CHECKING:
    from torch import nn

    from prunekit.measure import Macs
    from prunekit.sparse.ticket import Ticket

Key = tuple[Shape, str]
Say = Callable[[str], None]
PAUSE_S = 0.02  # the threads of an engine spin for a while after its pass, on cores that the next one needs


def bench(
    source: str | Path,
    *,
    stage: str | None = None,
    network: str | Mapping[str, Any] | None = None,
    shapes: Sequence[Shape] = (),
    backends: Sequence[str] = (),
    runs: int = 7,
    threads: int | None = None,
    progress: Say = lambda text: None,
) -> Bench:
    """Measure what a network costs: size, multiply-adds, and time, memory and error in every engine at hand.

    Args:
        source, stage, network: as for `prunekit.load`.
        shapes: of the inputs, with batch axis; by default the ticket's own, and for images twice its height and width.
        backends: names as in the table; by default all whose packages are installed.
        runs: timed passes for each backend and shape.
        threads: of every engine; by default as many as PyTorch takes.
        progress: called with a line of text before each thing that may take long.

    Returns:
        One row for each backend and shape; a backend that failed is a row that says why.

    Raises:
        RecipeError: an option is wrong, or a backend that was asked for is not installed.
        PruneKitError: as `prunekit.load` and ``Ticket.model``.

    Example:
        >>> linear = {"name": "python:torch.nn:Linear", "in_features": 4, "out_features": 2}
        >>> found = bench("linear", network=linear, shapes=[(1, 4)], backends=["eager"], runs=3)
        >>> [(row.backend, row.shape, len(row.times_ms), row.difference) for row in found.rows]
        [('eager', (1, 4), 3, 0.0)]
    """
    import torch

    from prunekit.sparse.source import load

    if runs < 1 or (threads is not None and threads < 1):
        raise RecipeError("--runs and --threads must be at least 1.")
    chosen, missing = choose(backends)
    ticket = load(source, stage=stage, network=network)
    model, threads = ticket.model(), threads or torch.get_num_threads()
    progress("counting parameters, bytes and multiply-adds")
    macs = _macs(ticket, model, shapes)
    job = Job(str(source), stage, network, "", next(iter(macs)), ticket.about.input_dtype, threads, onnx="")
    size, machine = _size(ticket, model), _machine(chosen, threads)
    trained = ticket.trained
    del ticket, model
    with tempfile.TemporaryDirectory(prefix="prunekit-bench-") as folder:
        rows = _rows(job, [(shape, name) for shape in macs for name in chosen], runs, Path(folder), progress)
    return Bench(str(source), size, macs, machine, rows, missing, trained)


def _macs(ticket: Ticket, model: nn.Module, shapes: Sequence[Shape]) -> dict[Shape, Macs]:
    """Count multiply-adds for the shapes asked for; else for the ticket's own and, where it is taken, the doubled."""
    from prunekit.measure import count_macs

    own = tuple(ticket.example().shape) if not shapes else ()
    counts: dict[Shape, Macs] = {}
    for shape in map(tuple, shapes or (own, *([(*own[:2], 2 * own[2], 2 * own[3])] if len(own) == 4 else []))):
        try:
            counts[shape] = count_macs(model, ticket.example(shape), ticket.masks)
        except Exception as cause:
            if counts and not shapes:
                continue  # a network of one input size
            first = (str(cause).strip() or type(cause).__name__).splitlines()[0]
            raise RecipeError(
                f"the network does not take an input of shape {shape_text(shape)} ({first}); give another --shape."
            ) from cause
    return counts


def _size(ticket: Ticket, model: nn.Module) -> Size:
    """Count parameters, and the bytes of the files that a dense and a sparse export write."""
    from prunekit.files import write_tensors
    from prunekit.select import parameters
    from prunekit.sparse.ticket_file import save_ticket

    with tempfile.TemporaryDirectory(prefix="prunekit-bench-") as folder:
        dense, sparse = Path(folder, "dense"), Path(folder, "sparse")
        write_tensors(dense, {name: t.float() if t.is_floating_point() else t for name, t in ticket.tensors.items()})
        save_ticket(ticket, sparse)
        bytes_dense, bytes_sparse = dense.stat().st_size, sparse.stat().st_size
    total = sum(parameter.numel() for parameter in parameters(model).values())
    return Size(total, ticket.masks.prunable, ticket.masks.kept, bytes_dense, bytes_sparse)


def _machine(chosen: Sequence[str], threads: int) -> Machine:
    from importlib.metadata import version

    import torch

    from prunekit.environment import cpu_name

    engines = [name for name in chosen if known_backends()[name].packages]
    return Machine(cpu_name(), threads, {"torch": torch.__version__} | {name: version(name) for name in engines})


def _rows(job: Job, keys: Sequence[Key], runs: int, folder: Path, progress: Say) -> tuple[Row, ...]:
    """Start a worker for each row, measure, and end them, however that goes."""
    workers: dict[Key, Asked] = {}
    peaks: dict[Key, float] = {}
    failures: dict[Key, str] = {}
    outputs = {key: folder / f"{number}.npy" for number, key in enumerate(keys)}
    job = replace(job, onnx=str(folder / "network.onnx"))
    unexported = _export(job, keys, folder / "export.log", progress)
    with ExitStack() as alive:
        for shape, name in keys:
            key = (shape, name)
            progress(f"preparing {name} for {shape_text(shape)}")
            try:
                if unexported and known_backends()[name].packages:
                    raise Failed(unexported)
                mine = asdict(replace(job, backend=name, shape=shape))
                with ExitStack() as unready:
                    worker = unready.enter_context(Worker(outputs[key].with_suffix(".log")))
                    peaks[key] = worker.ask({"do": "prepare", "job": mine, "output": str(outputs[key])})
                    workers[key] = worker
                    alive.enter_context(unready.pop_all())
            except Failed as failure:
                failures[key] = str(failure)
        times = take_turns(workers, runs, failures, progress)
    errors = {key: _difference(outputs[key], outputs.get((key[0], REFERENCE))) for key in workers}
    return tuple(
        Row(key[1], key[0], tuple(times.get(key, ())), peaks.get(key), errors.get(key), failures.get(key, ""))
        for key in keys
    )


def _export(job: Job, keys: Sequence[Key], log: Path, progress: Say) -> str:
    """Let a worker write the ONNX file if a backend reads it; return why it could not."""
    if not any(known_backends()[name].packages for _, name in keys):
        return ""
    progress("exporting to ONNX")
    try:
        with Worker(log) as worker:
            worker.ask({"do": "export", "job": asdict(job)})
    except Failed as failure:
        return f"the export to ONNX failed: {failure}"
    return ""


def take_turns(
    workers: Mapping[Key, Asked], runs: int, failures: dict[Key, str], progress: Say
) -> dict[Key, list[float]]:
    """Time one pass of each worker, then the next of each, so that whatever slows the machine down hits all alike.

    Args:
        failures: gets the reason of a worker that fails; its times so far are dropped, and the others go on.

    Returns:
        The ``runs`` times of each worker in ms.
    """
    times: dict[Key, list[float]] = {key: [] for key in workers}
    progress(f"measuring, {runs} rounds")
    for round_ in range(runs):
        began_s = time.perf_counter()
        for key in list(times):
            time.sleep(PAUSE_S)
            try:
                times[key].append(workers[key].ask({"do": "run"}))
            except Failed as failure:
                failures[key] = str(failure)
                del times[key]
        if round_ == 0 and runs > 1:
            progress(f"measuring, {runs} rounds of {time.perf_counter() - began_s:.1f} s")
    return times


def _difference(output: Path, reference: Path | None) -> float | None:
    """Return the largest absolute difference of two outputs, nan where one is or their sizes differ."""
    import numpy as np

    if reference is None or not reference.exists():
        return None
    mine, theirs = np.load(output), np.load(reference)
    if mine.shape != theirs.shape:
        return math.nan
    return float(np.max(np.abs(mine.astype(np.float64) - theirs), initial=0))
