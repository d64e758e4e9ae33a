"""Networks that run by plans, call after call: nothing is lost, nothing leaks, and threads do not meet."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunekit as pk
from prunekit.native import kernels
from prunekit.sparse.engine import build, planned, tune

pytestmark = pytest.mark.skipif(kernels() is None, reason="the kernels were not built: no C compiler at install")


class Block(nn.Module):
    """A gate between two 1x1 convolutions, weighed by the means of its channels, a residual, and a layer of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.wide = nn.Conv2d(16, 64, 1)
        self.around = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.weigh = nn.Linear(32, 32)
        self.out = nn.Conv2d(32, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        a, b = self.around(self.wide(self.norm(x))).chunk(2, 1)
        y = nn.functional.gelu(a) * b
        y = y * self.weigh(y.mean((2, 3)))[:, :, None, None]
        z: Tensor = x + self.out(y)
        return z


def compiled(model: nn.Module, example: Tensor) -> nn.Module:
    fast = pk.sparse.compile(model, example)
    runner = vars(fast).get("forward")
    assert isinstance(runner, planned.Planned) and runner.prepare(example), "it was to run by a plan"
    return fast


@pytest.fixture(autouse=True)
def _always_plans(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All that the kernels can compute they do, and what is measured meanwhile goes elsewhere."""
    monkeypatch.setattr(build, "GAIN", 1e9)
    monkeypatch.setattr(planned, "GAIN", 1e9)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def block(density: float = 0.2) -> nn.Module:
    torch.manual_seed(0)
    model = Block().eval()
    pk.prune(model, pk.Masks.dense(model), density).apply_(model)
    return model


@torch.no_grad()
@pytest.mark.parametrize("dense", [False, True])
def test_a_residual_is_added_whichever_product_is_faster(dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tune.Memo.seconds

    def seconds(memo: tune.Memo, what: Any, ways: Any) -> list[float]:
        return own(memo, what, ways) if what[0] != "1x1" else [2.0, 1.0] if dense else [1.0, 2.0]

    monkeypatch.setattr(tune.Memo, "seconds", seconds)
    model, x = block(), torch.rand(2, 3, 20, 37)
    assert torch.allclose(compiled(model, x)(x), model(x), atol=1e-5)


@torch.no_grad()
def test_an_earlier_output_stays_what_it_was() -> None:
    x, y = torch.rand(2, 2, 3, 20, 37)
    model = block()
    fast = compiled(model, x)
    first = fast(x)
    fast(y)
    assert torch.allclose(first, model(x), atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_a_thousand_calls_leave_no_memory_behind() -> None:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("reads /proc")
    x = torch.rand(1, 3, 48, 48)  # outputs of 144 KiB
    fast = compiled(block(), x)

    def resident_mib(calls: int) -> float:
        for _ in range(calls):
            fast(x)
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20

    before = resident_mib(100)
    assert resident_mib(1000) - before < 16


@pytest.mark.slow
@torch.no_grad()
def test_calls_at_the_same_time_give_what_they_give_one_by_one() -> None:
    inputs = torch.randn(8, 1, 3, 24, 40)
    fast = compiled(block(), inputs[0])
    alone = [fast(x) for x in inputs]
    wrong: list[int] = []
    together = threading.Barrier(len(inputs))

    def work(place: int) -> None:
        together.wait()
        with torch.no_grad():
            wrong.extend(place for _ in range(300) if not torch.equal(fast(inputs[place]), alone[place]))

    workers = [threading.Thread(target=work, args=(place,)) for place in range(len(inputs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
