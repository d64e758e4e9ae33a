"""Budgets: what takes too long is stopped and named; what does not is left alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from prunekit.budget import budget, resident_mib
from prunekit.errors import BudgetError

needs_memory = pytest.mark.skipif(resident_mib() is None, reason="the system does not tell how much memory is resident")


class Stuck(nn.Module):
    """Calls its child, then never ends."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        while True:
            x = self.inside(x) + 1


def stuck() -> None:
    while True:
        pass


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


def test_a_module_that_never_ends_is_stopped_and_named() -> None:
    model = nn.Sequential(nn.Identity(), nn.Sequential(Stuck()))
    with (
        pytest.raises(
            BudgetError, match=r"finding groups took more than 0\.1 s and was stopped at '1\.0(\.inside)?': "
        ),
        budget(seconds=0.1, model=model, what="finding groups"),
    ):
        model(torch.zeros(1))
    assert hooks(model) == 0


def test_after_its_child_a_module_itself_is_named() -> None:
    model = nn.Sequential(nn.Sequential(nn.Identity()))
    with budget(seconds=60, model=model) as limit:
        model[0].register_forward_hook(lambda *_: seen.append(limit.at))
        seen: list[str] = []
        model[0][0].register_forward_hook(lambda *_: seen.append(limit.at))
        model(torch.zeros(1))
        assert seen == ["0", ""]


def test_what_the_block_says_is_named() -> None:
    with pytest.raises(BudgetError, match="at 'encoder'"), budget(seconds=0.1) as limit:
        limit.at = "encoder"
        stuck()


@needs_memory
def test_a_memory_hog_is_stopped() -> None:
    kept = []
    with pytest.raises(BudgetError, match=r"more than 64 MiB of memory \(\d+ after"), budget(mib=64):
        for _ in range(200):
            kept.append(b"x" * 2**22)
            time.sleep(0.01)
    assert 16 <= len(kept) < 100


def test_within_its_budget_a_block_is_left_alone() -> None:
    model = nn.Linear(2, 2)
    with budget(seconds=60, mib=2**20, model=model):
        model(torch.zeros(2))
    assert hooks(model) == 0
    assert not [each for each in threading.enumerate() if each.name == "prunekit-budget"]


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), budget(seconds=60):
        _ = 1 / 0


@pytest.mark.parametrize(("outer_s", "inner_s", "named"), [(60, 0.1, "inner"), (0.1, 60, "outer")])
def test_of_nested_blocks_the_one_that_is_over_is_left(outer_s: float, inner_s: float, named: str) -> None:
    left = []
    with pytest.raises(BudgetError, match=named), budget(seconds=outer_s, what="outer"):
        try:
            with budget(seconds=inner_s, what="inner"):
                stuck()
        finally:
            left.append("inner")
    assert left == ["inner"]


def test_a_block_goes_on_after_an_inner_one_was_stopped() -> None:
    with budget(seconds=60):
        with pytest.raises(BudgetError), budget(seconds=0.1):
            stuck()
        assert sum(range(10**6)) == 499999500000


def test_what_the_stop_broke_is_its_cause() -> None:
    def breaks() -> None:
        try:
            stuck()
        finally:
            raise RuntimeError("half done")

    with pytest.raises(BudgetError) as raised, budget(seconds=0.1):
        breaks()
    assert str(raised.value.__cause__) == "half done"


def test_one_that_swallows_everything_is_stopped_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunekit.budget.AGAIN_AFTER_S", 0.1)
    swallowed = 0
    with pytest.raises(BudgetError), budget(seconds=0.05):
        while swallowed < 3:
            try:
                stuck()
            except BaseException:
                swallowed += 1
        stuck()
    assert swallowed == 3


def test_in_another_thread() -> None:
    raised = in_thread(stuck, 0.1)
    assert [type(each) for each in raised] == [BudgetError]


def test_nothing_arrives_after_the_block() -> None:
    """Blocks that end at the very moment when the watch looks: each is left by its own error or by none."""
    for step in range(20):
        try:
            with budget(seconds=0.04):
                end_s = time.perf_counter() + 0.049 + step * 1e-4
                while time.perf_counter() < end_s:
                    pass
        except BudgetError:
            pass
        for _ in range(2000):
            pass


def in_thread(work: Callable[[], None], seconds: float) -> list[BaseException]:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            with budget(seconds=seconds):
                work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(timeout=30)
    return raised
