"""The process that one backend runs in: ``python -m prunekit.bench.worker``, a JSON object a line in and out.

It is asked ``export`` (write the ONNX file), or ``prepare`` (build, warm up, write one output: peak memory in MiB) and
then ``run`` (one pass: milliseconds) as often as wanted. Replies are ``{"value": ...}`` or ``{"error": "..."}``. It
ends when stdin does.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from prunekit.bench.backends import Job, Step, export, known_backends
from prunekit.errors import PruneKitError

SHORT_MS = 250  # a pass as short as this feels that other processes had the caches, and its threads were asleep,
WARM_MS = 50  # so it is repeated for as long as this, and the last one counts


def main() -> None:
    """Answer requests until the parent closes our stdin or is gone."""
    requests, replies = _channel()
    steps: list[Step] = []
    while True:
        request = requests.get()
        try:
            reply = {"value": _answer(request, steps)}
        except Exception as cause:
            traceback.print_exc()
            reply = {"error": _brief(cause)}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _channel() -> tuple[queue.Queue[Any], IO[str]]:
    """Take stdin and stdout for ourselves, so that no library's print or subprocess meddles with them."""
    incoming, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    requests: queue.Queue[Any] = queue.Queue()

    def read() -> None:
        for line in incoming:
            requests.put(json.loads(line))
        os._exit(0)  # whatever is going on: nobody waits for it any more

    threading.Thread(target=read, daemon=True).start()
    return requests, replies


def _answer(request: Mapping[str, Any], steps: list[Step]) -> Any:
    if request["do"] == "run":
        return _timed_ms(steps[0])
    job = Job(**request["job"])
    if request["do"] == "export":
        return export(job)
    steps[:] = [known_backends()[job.backend].build(job)]
    return _prepare(steps[0], Path(request["output"]))


def _prepare(step: Step, output: Path) -> float:
    """Warm up, write one output, and return the peak memory of a pass in MiB."""
    step()
    forget_peak()
    result = step()
    most_mib = peak_mib()
    np.save(output, np.concatenate([leaf.astype(np.float32).ravel() for leaf in _leaves(result)]))
    return most_mib


def _timed_ms(step: Step) -> float:
    """Return the milliseconds of one pass, as in steady use."""
    until_s = time.perf_counter() + WARM_MS / 1000
    ms = _pass_ms(step)
    while ms < SHORT_MS and time.perf_counter() < until_s:
        ms = _pass_ms(step)
    return ms


def _pass_ms(step: Step) -> float:
    began_s = time.perf_counter()
    step()
    return 1000 * (time.perf_counter() - began_s)


def _leaves(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the arrays in what a network returned, in order."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    elif value is not None:
        yield np.asarray(value)


def forget_peak() -> None:
    """Let the system's high-water mark of our memory start again from what we hold now; where it can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return  # then the peak is a running maximum, preparation included


def peak_mib() -> float:
    """Return the most memory of this process since then, in MiB."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _brief(cause: Exception) -> str:
    """Say in one line what went wrong; the traceback is in the log."""
    if isinstance(cause, PruneKitError):
        return str(cause)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0][:300]}" if lines else type(cause).__name__


if __name__ == "__main__":
    main()
