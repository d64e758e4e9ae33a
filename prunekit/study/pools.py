"""Where the arms of a study are run: in processes of this machine, or on the nodes of a Ray cluster."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from signal import SIGKILL, SIGTERM, Signals
from typing import Any, Self, final

import torch

from prunekit.errors import PruneKitError, RunError
from prunekit.study.process import do
from prunekit.study.walk import Work

CUDA = "CUDA_VISIBLE_DEVICES"
TRIES = 20
"""How often Ray starts a work again whose worker or node was lost."""
ANSWER_S = 5.0


@final
class Here:
    """Processes of this machine: each has its share of the threads, and a GPU where there are some.

    Left by an exception, such as Ctrl-C, it lets every run save its step and waits for that; by another one meanwhile,
    it kills them, which runs survive, too.

    Args:
        device: ``"auto"`` or ``"cpu"``.
        options: of every run.
        jobs: how many at a time; by default one a GPU, or one a core.
        most: there are no more works than that.
    """

    def __init__(self, device: str, options: Sequence[str], jobs: int | None, most: int) -> None:
        gpus = [] if device == "cpu" else _gpus()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.jobs = jobs or min(len(gpus) or cores, most)
        self._options = options
        self._places: SimpleQueue[dict[str, str]] = SimpleQueue()
        for number in range(self.jobs):
            place = {"OMP_NUM_THREADS": str(max(1, cores // self.jobs))}
            self._places.put(place | {CUDA: gpus[number % len(gpus)]} if gpus else place)
        self._threads = ThreadPoolExecutor(self.jobs)
        self._ending: Signals | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ending = SIGTERM if kind is not None else None
        try:
            self._threads.shutdown(cancel_futures=True)
        except KeyboardInterrupt:
            self._ending = SIGKILL
            self._threads.shutdown()
            raise

    def submit(self, work: Work) -> Future[str]:
        """Do the work as soon as a place is free."""
        return self._threads.submit(self._do, work)

    def _do(self, work: Work) -> str:
        place = self._places.get()
        try:
            return do(work, self._options, place, lambda: self._ending)
        finally:
            self._places.put(place)


def _gpus() -> list[str]:
    """Return the names of the GPUs that this process may use, as the environment variable has them."""
    count = torch.cuda.device_count()
    allowed = [name for name in os.environ.get(CUDA, "").split(",") if name]
    return (allowed or list(map(str, range(count))))[:count]


@final
class Cluster:
    """A Ray cluster whose nodes see the study's directory under the same path and have PruneKit installed.

    A work whose worker or node is lost starts again elsewhere, where the run goes on from its last checkpoint.

    Args:
        address: of the cluster, as ``ray.init`` takes it.
        device: ``"cpu"`` takes cores; ``"auto"`` a GPU for each work where the cluster has some, or else cores.
        options: of every run.
        jobs: how many at a time; by default one a GPU, or one a core of the cluster.
        most: there are no more works than that.

    Raises:
        PruneKitError: Ray is missing.
        RunError: there is no such cluster.
    """

    def __init__(self, address: str, device: str, options: Sequence[str], jobs: int | None, most: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anyone
        try:
            import ray
        except ImportError as cause:
            raise PruneKitError('--ray needs Ray: pip install "prunekit[ray]".') from cause
        refuse_silent(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (OSError, ValueError, RuntimeError) as cause:
            raise _no_cluster(address, cause) from cause
        self._ray: Any = ray
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = 0 if device == "cpu" else int(sum(node.get("GPU", 0) for node in nodes))
        self.jobs, threads = places(nodes, gpus > 0, jobs, most)
        if not self.jobs:
            ray.shutdown()
            raise RunError(f"--ray {address}: no node of that cluster has a core: start some without --num-cpus=0.")
        self._work = ray.remote(_do_there).options(
            num_cpus=threads, num_gpus=1 if gpus else 0, max_retries=TRIES, scheduling_strategy="SPREAD"
        )
        self._arguments = (options, threads, str(Path.cwd()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ray.shutdown()  # ends the workers and with them their runs, which go on from their last checkpoint

    def submit(self, work: Work) -> Future[str]:
        """Do the work as soon as a node has room."""
        done: Future[str] = self._work.remote(work, *self._arguments).future()
        return done


def places(nodes: Sequence[Mapping[str, float]], on_gpus: bool, jobs: int | None, most: int) -> tuple[int, int]:
    """Return how many works go at a time, and the threads of each, so that a node can hold its share.

    Args:
        nodes: what each has, by Ray's names ``"CPU"`` and ``"GPU"``.
        on_gpus: whether each work takes a GPU; else cores alone.
        jobs: how many were asked for, if it was said.
        most: there are no more works than that.

    Returns:
        No place at all where no node has a core.

    Example:
        >>> places([{"CPU": 8}, {"CPU": 4}], on_gpus=False, jobs=None, most=6)
        (6, 2)
        >>> places([{"CPU": 64}, {"CPU": 8, "GPU": 4}], on_gpus=True, jobs=None, most=6)
        (4, 2)
    """
    cores = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]
    held = [(cpus, gpus if on_gpus else cpus) for cpus, gpus in cores if cpus and (gpus or not on_gpus)]
    if not held:
        return 0, 0
    number = jobs or min(sum(slots for _, slots in held), most)
    each = min(cpus // slots for cpus, slots in held) if on_gpus else sum(cpus for cpus, _ in held) // number
    return number, max(1, min(each, *(cpus for cpus, _ in held)))


def refuse_silent(address: str) -> None:
    """Raise RunError where nobody listens at HOST:PORT; Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
        except OSError as cause:
            raise _no_cluster(address, cause) from cause


def _no_cluster(address: str, cause: Exception) -> RunError:
    why = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    return RunError(
        f"--ray {address}: no Ray cluster answers there ({why}); start one with "
        "'ray start --head', and its other nodes with 'ray start --address HEAD:6379'."
    )


def _do_there(work: Work, options: Sequence[str], threads: int, directory: str) -> str:
    there = Path(directory)
    if not there.is_dir() or not (there / work.recipe).is_file():
        return (
            f"the node {os.uname().nodename} does not see {there / work.recipe}: the study's directory must be shared."
        )
    os.chdir(there)  # paths are seen from where the study was started
    return do(work, options, {"OMP_NUM_THREADS": str(threads)}, lambda: None)
