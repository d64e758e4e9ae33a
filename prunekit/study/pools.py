"""Where the arms of a study are run: in processes of this machine, or on the nodes of a Ray cluster."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, final

import torch

from prunekit.errors import PruneKitError, RunError
from prunekit.study.walk import Work, do

CUDA = "CUDA_VISIBLE_DEVICES"
TRIES = 20
"""How often Ray starts a work again whose worker or node was lost."""


@final
class Here:
    """Processes of this machine: each has its share of the threads, and a GPU where there are some.

    Args:
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        jobs: how many at a time; by default one a GPU, or one a core.
        most: there are no more works than that.
    """

    def __init__(self, device: str, jobs: int | None, most: int) -> None:
        gpus = _gpus() if device in ("auto", "cuda") else []
        cores = os.cpu_count() or 1
        self.jobs = jobs or min(len(gpus) or cores, most)
        self.gpus = len(gpus)
        self._device = device
        self._places: SimpleQueue[dict[str, str]] = SimpleQueue()
        for number in range(self.jobs):
            place = {"OMP_NUM_THREADS": str(max(1, cores // self.jobs))}
            self._places.put(place | {CUDA: gpus[number % len(gpus)]} if gpus else place)
        self._threads = ThreadPoolExecutor(self.jobs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def submit(self, work: Work) -> Future[str]:
        """Do the work as soon as a place is free."""
        return self._threads.submit(self._do, work)

    def _do(self, work: Work) -> str:
        place = self._places.get()
        try:
            return do(work, self._device, place)
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
        device: ``"auto"`` and ``"cpu"`` take cores, ``"cuda"`` a GPU for each work.
        jobs: how many at a time; by default one a GPU, or one a core of the cluster.
        most: there are no more works than that.

    Raises:
        PruneKitError: Ray is missing.
        RunError: there is no such cluster, or none with a GPU.
    """

    def __init__(self, address: str, device: str, jobs: int | None, most: int) -> None:
        try:
            import ray
        except ImportError as cause:
            raise PruneKitError('--ray needs Ray: pip install "prunekit[ray]".') from cause
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as cause:
            raise RunError(
                f"--ray {address}: no Ray cluster answers there ({str(cause).splitlines()[0]}); start one with "
                "'ray start --head', and its other nodes with 'ray start --address HEAD:6379'."
            ) from cause
        self._ray: Any = ray
        total = ray.cluster_resources()
        self.gpus = int(total.get("GPU", 0)) if device == "cuda" else 0
        if device == "cuda" and not self.gpus:
            ray.shutdown()
            raise RunError(f"--ray {address}: no node of this cluster has a GPU; leave --device out.")
        cores = int(total.get("CPU", 1))
        self.jobs = jobs or max(1, min(self.gpus or cores, most))
        threads = max(1, cores // self.jobs)
        self._work = ray.remote(_do_there).options(
            num_cpus=threads, num_gpus=1 if self.gpus else 0, max_retries=TRIES, scheduling_strategy="SPREAD"
        )
        self._arguments = ("cuda" if self.gpus else "cpu", threads, os.getcwd())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: TracebackType | object) -> None:
        self._ray.shutdown()

    def submit(self, work: Work) -> Future[str]:
        """Do the work as soon as a node has room."""
        done: Future[str] = self._work.remote(work, *self._arguments).future()
        return done


def _do_there(work: Work, device: str, threads: int, directory: str) -> str:
    if not work.recipe.is_file():
        return f"the node {os.uname().nodename} does not see {work.recipe}: the study's directory must be shared."
    os.chdir(directory)  # a recipe may name modules and data from where the study was started
    return do(work, device, {"OMP_NUM_THREADS": str(threads)})
