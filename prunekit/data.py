"""Data order and randomness as functions of keys: seekable, shared by ranks, the same for any number of workers."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, final

import numpy as np
import torch
from torch import Tensor, distributed
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, default_collate, get_worker_info

from prunekit.errors import PruneKitError, RecipeError

T = TypeVar("T")
SMALL_BYTES = 2**20
"""Up to which a worker's batch is sent through a pipe; larger ones are handed over in shared memory."""

Key = tuple[int, int]
"""(epoch, index): all that a training sample may depend on, besides the seed."""


class Samples(Protocol):
    """A sized training set whose samples are functions of (epoch, index), never of what was drawn before."""

    def __len__(self) -> int:
        """Return the number of samples in an epoch."""

    def sample(self, epoch: int, index: int) -> Any:
        """Return one sample: a tensor, or a tuple or dict of tensors, without a batch axis."""


def rank_and_world() -> tuple[int, int]:
    """Return this process's rank and the number of processes; (0, 1) outside ``torch.distributed``."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def share(items: Sequence[T]) -> list[T]:
    """Return this process's items, e.g. for evaluation: every world-th, starting from its rank."""
    rank, world = rank_and_world()
    return list(items[rank::world])


def generator(*key: int | str) -> np.random.Generator:
    """Return a fresh generator of random numbers that depends on ``key`` alone.

    Example:
        >>> float(generator("noise", 1).random()) == float(generator("noise", 1).random())
        True
        >>> float(generator("noise", 1).random()) == float(generator("noise", 2).random())
        False
    """
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest)))


def order(n: int, *, seed: int, epoch: int) -> list[int]:
    """Return the permutation of ``range(n)`` in which an epoch visits its samples."""
    return [int(i) for i in generator("order", seed, epoch).permutation(n)]


def epoch_steps(n: int, size: int) -> int:
    """Return the optimiser steps in an epoch of ``n`` samples: the last, incomplete batch is dropped; at least 1.

    Example:
        >>> epoch_steps(10, 4), epoch_steps(3, 4)
        (2, 1)
    """
    return max(1, n // size)


def batches(
    dataset: Samples, *, size: int, seed: int, clock: int, workers: int = 0, pin: bool = False
) -> Iterator[Any]:
    """Yield this process's share of every batch from optimiser step ``clock`` on, without end.

    A batch that starts at step k is the same whether training began at step 0 or at k, and for any number of workers.
    Closing the iterator, or dropping it, ends its workers.

    Args:
        dataset: the samples.
        size: samples per optimiser step over all processes; a multiple of their number. Each takes every world-th. A
            data set smaller than ``size`` is passed over several times for each batch, each time as another epoch.
        seed: seed of the order.
        clock: the first step.
        workers: loader processes; 0 loads in this process, and starts none.
        pin: put batches in page-locked memory, for a faster copy to a CUDA device.

    Raises:
        RecipeError: the batch cannot be shared out evenly, or the data set is empty.
    """
    rank, world = rank_and_world()
    if size < 1 or size % world:
        raise RecipeError(f"batch size {size} cannot be shared by {world} processes: make it a multiple of {world}.")
    if not len(dataset):
        raise RecipeError("the training set is empty, so there is no batch to draw.")
    return _load(dataset, _keys(len(dataset), size, seed, clock), slice(rank, None, world), workers, pin)


def _load(dataset: Samples, keys: Iterator[list[Key]], mine: slice, workers: int, pin: bool) -> Iterator[Any]:
    loader: DataLoader[Any] = DataLoader(
        _Keyed(dataset),  # type: ignore[arg-type]  # a map over keys is all that a loader with a batch sampler needs
        batch_sampler=(batch[mine] for batch in keys),
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pin,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,  # shares what is in memory
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # else the loader draws a seed from the global generator
    )
    for batch in loader:
        if isinstance(batch, PruneKitError):
            raise batch
        yield batch.tensors() if isinstance(batch, _Small) else batch


def _keys(n: int, size: int, seed: int, clock: int) -> Iterator[list[Key]]:
    """Yield the keys of every global batch from step ``clock`` on."""
    per_epoch = epoch_steps(n, size)
    passes = max(1, math.ceil(size / n))
    epoch, at = divmod(clock, per_epoch)
    while True:
        visits = range(epoch * passes, (epoch + 1) * passes)
        keys = [(visit, index) for visit in visits for index in order(n, seed=seed, epoch=visit)]
        for start in range(at * size, per_epoch * size, size):
            yield keys[start : start + size]
        epoch, at = epoch + 1, 0


@final
@dataclass(frozen=True)
class _Keyed:
    """What a loader sees: samples by key; a user's mistake is returned, for a worker could only raise its traceback."""

    dataset: Samples

    def __getitem__(self, key: Key) -> Any:
        try:
            return self.dataset.sample(*key)
        except PruneKitError as error:
            return error


_ARRAYS = {torch.uint8, torch.int64, torch.float32, torch.float64}


def _collate(samples: list[Any]) -> Any:
    mistake = next((s for s in samples if isinstance(s, PruneKitError)), None)
    if mistake:
        return mistake
    leaves = [leaf for sample in samples for leaf in tree_leaves(sample)]
    if not all(isinstance(leaf, Tensor) for leaf in leaves):
        return default_collate(samples)
    batch = tree_map(lambda *column: torch.stack(column), *samples)  # tuples stay tuples, whoever loads
    plain = all(leaf.dtype in _ARRAYS for leaf in leaves) and sum(leaf.nbytes for leaf in leaves) <= SMALL_BYTES
    return _Small(tree_map(Tensor.numpy, batch)) if plain and get_worker_info() else batch


@final
@dataclass(frozen=True)
class _Small:
    """A batch of a worker as arrays, whose bytes are sent; tensors share memory, which takes longer to set up."""

    arrays: Any

    def tensors(self) -> Any:
        return tree_map(torch.from_numpy, self.arrays)

    def pin_memory(self) -> Any:  # called by the thread in which a loader pins
        return tree_map(Tensor.pin_memory, self.tensors())


def _start_worker(worker: int) -> None:
    # Ctrl-C and a scheduler's SIGTERM reach the whole process group; the main process alone decides how to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(parent: Any) -> None:
    # A process that was killed takes no more batches, and a worker whose pipe is full would wait for it for ever.
    while os.getppid() == parent.pid:
        time.sleep(1)
    os._exit(1)
