"""Order, keyed randomness and batches: seekable, independent of workers, shared by ranks."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from prunekit import data
from prunekit.errors import DataError, RecipeError


@dataclass(frozen=True)
class Keys:
    """Each sample is its own key, and a random number drawn from it."""

    n: int
    broken: int = -1

    def __len__(self) -> int:
        return self.n

    def sample(self, epoch: int, index: int) -> dict[str, torch.Tensor]:
        if index == self.broken:
            raise DataError("cat.png is truncated.")
        noise = data.generator("noise", epoch, index).standard_normal(3)
        return {"key": torch.tensor([epoch, index]), "noise": torch.from_numpy(noise)}


def take(count: int, dataset: Keys, **options: Any) -> list[dict[str, torch.Tensor]]:
    return list(itertools.islice(data.batches(dataset, **{"size": 4, "seed": 0, "clock": 0} | options), count))


def keys(batches: list[dict[str, torch.Tensor]]) -> list[tuple[int, int]]:
    return [tuple(key) for batch in batches for key in batch["key"].tolist()]


def same(a: list[dict[str, torch.Tensor]], b: list[dict[str, torch.Tensor]]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x[k], y[k]) for x, y in zip(a, b, strict=True) for k in ("key", "noise")
    )


def test_order_is_a_permutation_of_its_seed_and_epoch() -> None:
    assert sorted(data.order(100, seed=0, epoch=0)) == list(range(100))
    assert data.order(100, seed=0, epoch=3) == data.order(100, seed=0, epoch=3)
    assert data.order(100, seed=0, epoch=3) != data.order(100, seed=0, epoch=4)
    assert data.order(100, seed=0, epoch=3) != data.order(100, seed=1, epoch=3)


def test_order_is_the_same_on_every_machine_and_in_every_process() -> None:
    assert data.order(8, seed=0, epoch=0) == [6, 4, 1, 7, 0, 5, 2, 3]


def test_generator_tells_keys_apart_by_value_and_type() -> None:
    streams = [("a", 1), ("a", "1"), ("a1",), (1, "a"), ("a", 1, 0)]
    firsts = [data.generator(*key).integers(2**62) for key in streams]
    assert len(set(firsts)) == len(streams)


def test_an_epoch_visits_each_sample_at_most_once_and_drops_the_last_incomplete_batch() -> None:
    seen = keys(take(4, Keys(10)))
    assert [epoch for epoch, _ in seen] == [0] * 8 + [1] * 8
    assert len(set(seen)) == 16


@pytest.mark.parametrize("clock", [1, 2, 3, 7])
def test_starting_at_a_step_equals_having_come_there(clock: int) -> None:
    assert same(take(9, Keys(10))[clock:], take(9 - clock, Keys(10), clock=clock))


def test_a_set_smaller_than_a_batch_is_passed_over_again_as_another_epoch() -> None:
    first, second = take(2, Keys(3))
    assert len(first["key"]) == len(second["key"]) == 4
    assert len(set(keys([first, second]))) == 8
    assert {index for _, index in keys([first])} == {0, 1, 2}


@pytest.mark.parametrize("small_bytes", [data.SMALL_BYTES, 0])
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing_and_end_with_the_iterator(
    workers: int, small_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "SMALL_BYTES", small_bytes)
    state = torch.get_rng_state()
    stream = data.batches(Keys(10), size=4, seed=0, clock=1, workers=workers)
    found = list(itertools.islice(stream, 5))
    assert len(multiprocessing.active_children()) == workers
    del stream
    gc.collect()
    assert not multiprocessing.active_children()
    assert same(found, take(6, Keys(10))[1:])
    assert torch.equal(torch.get_rng_state(), state)


@dataclass(frozen=True)
class Mixed:
    """Samples of several kinds, some of which are no tensors, or of a type that numpy lacks."""

    extra: Any

    def __len__(self) -> int:
        return 8

    def sample(self, epoch: int, index: int) -> Any:
        return {"pair": (torch.full((2, 3), index), torch.tensor(0.5)), "extra": self.extra}


@pytest.mark.parametrize("extra", [torch.tensor(True), torch.tensor(1.5, dtype=torch.bfloat16), "name", 3])
def test_any_sample_that_torch_can_stack_comes_out_of_workers_alike(extra: Any) -> None:
    here, there = (next(data.batches(Mixed(extra), size=4, seed=0, clock=0, workers=n)) for n in (0, 1))
    assert list(here) == list(there) and type(here["extra"]) is type(there["extra"])
    for a, b in zip(here["pair"], there["pair"], strict=True):
        assert torch.equal(a, b) and a.dtype == b.dtype
    assert type(here["pair"]) is type(there["pair"])
    assert there["pair"][0].is_contiguous()
    there["pair"][0].add_(1)  # it may be written to
    assert repr(here["extra"]) == repr(there["extra"])


@pytest.mark.gpu
@pytest.mark.parametrize("small_bytes", [data.SMALL_BYTES, 0])
def test_batches_are_pinned_on_request(small_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "SMALL_BYTES", small_bytes)
    (batch,) = itertools.islice(data.batches(Keys(10), size=4, seed=0, clock=0, workers=1, pin=True), 1)
    assert batch["key"].is_pinned() and batch["noise"].is_pinned()


def test_small_batches_are_pinned_by_the_loaders_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: pinned.append(x.tolist()) or x)
    (batch,) = pin_memory([data._Small((torch.arange(3).numpy(), torch.zeros(1).numpy()))])
    assert pinned == [[0, 1, 2], [0.0]]
    assert torch.equal(batch[0], torch.arange(3))


LOADS = """
import multiprocessing, time
import torch
from prunekit.data import batches

class Large:
    def __len__(self):
        return 8

    def sample(self, epoch, index):
        return torch.zeros(200_000, dtype=torch.uint8)

stream = batches(Large(), size=4, seed=0, clock=0, workers=2)
next(stream)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_end_when_their_process_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", LOADS], stdout=subprocess.PIPE, text=True) as loading:
        assert loading.stdout is not None
        workers = [Path(f"/proc/{pid}/cmdline") for pid in loading.stdout.readline().split()]
        assert len(workers) == 2 and all("Large" in path.read_text() for path in workers)
        loading.kill()
    deadline = time.monotonic() + 30
    while left := [path for path in workers if alive(path)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def alive(command: Path) -> bool:
    """Tell whether a process runs: a dead one that nobody has waited for has no command."""
    try:
        return "Large" in command.read_text()
    except OSError:
        return False


def test_loading_here_leaves_the_global_random_state_alone() -> None:
    state = torch.get_rng_state()
    take(3, Keys(10))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_users_mistake_arrives_as_it_was_raised(workers: int) -> None:
    with pytest.raises(DataError, match=r"^cat\.png is truncated\.$"):
        take(3, Keys(10, broken=data.order(10, seed=0, epoch=0)[5]), workers=workers)


def test_ranks_share_each_batch_and_the_test_items(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = take(3, Keys(10))
    for rank in range(2):
        monkeypatch.setattr(data, "rank_and_world", lambda rank=rank: (rank, 2))
        mine = take(3, Keys(10))
        assert all(torch.equal(m["key"], w["key"][rank::2]) for m, w in zip(mine, whole, strict=True))
        assert data.share([10, 11, 12]) == [[10, 12], [11]][rank]


def test_a_batch_that_cannot_be_shared_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "rank_and_world", lambda: (0, 3))
    with pytest.raises(RecipeError, match="batch size 4 cannot be shared by 3 processes"):
        data.batches(Keys(10), size=4, seed=0, clock=0)


def test_an_empty_set_is_refused_at_once() -> None:
    with pytest.raises(RecipeError, match="empty"):
        data.batches(Keys(0), size=4, seed=0, clock=0)


def test_one_process_is_rank_0_of_1() -> None:
    assert data.rank_and_world() == (0, 1)
