"""Whole networks that are compiled: when a plan serves, and when the network runs its own way."""

from __future__ import annotations

import copy
import math
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunekit as pk
from prunekit.native import kernels
from prunekit.sparse.engine import build as building
from prunekit.sparse.engine import planned as planning
from prunekit.sparse.engine.plan import Plan
from prunekit.sparse.engine.planned import Planned, alike, faster

pytestmark = pytest.mark.skipif(kernels() is None, reason="the kernels were not built: no C compiler at install")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.deep = nn.Conv2d(16, 16, 1)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.deep(self.first(x))
        return {"map": torch.relu(self.norm(y)) + y, "mean": y.mean((2, 3))}


def pruned() -> nn.Module:
    torch.manual_seed(0)
    model = Net()
    pk.prune(model, pk.Masks.dense(model), 0.3).apply_(model)
    return model.eval()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Plan | None]:
    """The plans that are made, all of them taken."""
    monkeypatch.setattr(building, "GAIN", math.inf)
    monkeypatch.setattr(planning, "GAIN", math.inf)
    plans: list[Plan | None] = []

    def noted(*arguments: Any) -> Plan | None:
        plans.append(faster(*arguments))
        return plans[-1]

    monkeypatch.setattr(planning, "faster", noted)
    return plans


def check(fast: nn.Module, model: nn.Module, x: Tensor) -> Any:
    with torch.no_grad():
        found = fast(x)
        assert alike(found, model(x))
    return found


def test_a_compiled_network_gives_the_same(made: list[Plan | None]) -> None:
    model, x = pruned(), torch.rand(2, 3, 9, 17)
    fast = pk.sparse.compile(model, x)
    assert len(made) == 1 and made[0] is not None and made[0].chains
    check(fast, model, torch.rand(2, 3, 9, 17))
    assert len(made) == 1


def test_another_shape_gets_its_plan_the_second_time(made: list[Plan | None]) -> None:
    model = pruned()
    fast = pk.sparse.compile(model, torch.rand(1, 3, 8, 8))
    for plans in (1, 2, 2):
        check(fast, model, torch.rand(3, 3, 8, 8))
        assert len(made) == plans


def test_only_so_many_plans_are_kept(made: list[Plan | None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "PLANS", 2)
    model = pruned()
    planned = Planned(model)
    for size in (4, 5, 6, 4):
        assert planned.prepare(torch.rand(1, 3, size, size))
    assert len(made) == 4


@pytest.mark.parametrize(
    "change",
    [lambda x: x.requires_grad_(), lambda x: x.double(), lambda x: x[:0], lambda x: x.to("meta")],
)
def test_what_plans_do_not_know_goes_its_own_way(
    change: Callable[[Tensor], Tensor], made: list[Plan | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.rand(1, 3, 8, 8)
    model = pruned()
    fast = pk.sparse.compile(model, x)
    monkeypatch.setattr(Plan, "__call__", lambda plan, x: pytest.fail("a plan was taken"))
    other = change(x)
    model, fast = model.to(other), fast.to(other) if other.dtype == torch.float64 else fast
    if other.device.type == "meta":
        model, fast = model.to("meta"), fast.to("meta")
    expected, found = model(other), fast(other)
    assert found["map"].shape == expected["map"].shape and found["map"].requires_grad
    assert len(made) == 1


def test_autocast_goes_its_own_way(made: list[Plan | None]) -> None:
    x = torch.rand(1, 3, 8, 8)
    fast = pk.sparse.compile(pruned(), x)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert fast.first(x).dtype == torch.bfloat16
        fast(torch.rand(1, 3, 7, 7)), fast(torch.rand(1, 3, 7, 7))
    assert len(made) == 1


def test_training_goes_its_own_way(made: list[Plan | None]) -> None:
    x = torch.rand(4, 3, 8, 8)
    model, fast = pruned(), pk.sparse.compile(pruned(), x)
    with torch.no_grad():
        assert alike(fast.train()(x), model.train()(x))
    assert torch.allclose(fast.norm.running_mean, model.norm.running_mean)


def test_inference_mode_and_no_grad_share_a_plan(made: list[Plan | None]) -> None:
    model, x = pruned(), torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        fast = pk.sparse.compile(model, x)
        fast(x)
    check(fast, model, x)["map"].add_(1)
    assert len(made) == 1


def test_a_network_that_branches_on_values_keeps_its_own_way(made: list[Plan | None]) -> None:
    class Branches(Net):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return super().forward(x if x.mean() > 0 else -x)

    model, x = Branches().eval(), torch.rand(1, 3, 8, 8)
    pk.prune(model, pk.Masks.dense(model), 0.3).apply_(model)
    fast = pk.sparse.compile(model, x)
    assert made == [None]
    check(fast, model, x)
    check(fast, model, -x)


def test_copies_have_plans_of_their_own(made: list[Plan | None]) -> None:
    model, x = pruned(), torch.rand(1, 3, 8, 8)
    fast = pk.sparse.compile(model, x)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        with torch.no_grad():
            other.first.weight.mul_(2)
            other(x)
            assert alike(other(x), type(other).forward(other, x))
    check(fast, model, x)
    assert len(made) == 3


def test_threads_that_meet_a_shape_together_get_one_plan(made: list[Plan | None]) -> None:
    model = pruned()
    fast = pk.sparse.compile(model, torch.rand(1, 3, 8, 8))
    inputs = [torch.rand(1, 3, 12, 12) for _ in range(4)]
    found: dict[int, list[Any]] = {}

    def work(place: int) -> None:
        with torch.no_grad():
            found[place] = [fast(inputs[place]) for _ in range(6)]

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with torch.no_grad():
        assert all(alike(each, model(inputs[place])) for place, outputs in found.items() for each in outputs)
    assert len(found) == 4 and len(made) == 2


def test_outputs_are_alike() -> None:
    one = torch.ones(3)
    assert alike({"a": one, "b": 3}, {"a": one + 1e-6, "b": 3})
    assert alike([one > 0, one[:0], None], [one > 0, one[:0], None])
    assert not alike(one, one + 1e-3)
    assert not alike(one, one * math.nan)
    assert not alike(one, one.double())
    assert not alike(one, one[None])
    assert not alike([one], (one,))
    assert not alike([one, 3], [one, 4])
    assert not alike(one > 0, one < 0)
