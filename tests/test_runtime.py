"""Compile: the same outputs, the model untouched, and a choice by measurement."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunekit as pk
from prunekit.native import kernels
from prunekit.sparse import runtime
from prunekit.sparse.engine import build as building
from prunekit.sparse.engine import planned
from prunekit.sparse.engine.tune import Memo
from prunekit.sparse.modules import SparseConv2d

needs_kernels = pytest.mark.skipif(kernels() is None, reason="the kernels were not built: no C compiler at install")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, padding=1)
        self.deep = nn.Conv2d(32, 32, 1)
        self.norm = nn.BatchNorm2d(32)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.deep(torch.relu(self.conv(x)))))
        z: Tensor = self.head(y.mean((2, 3)))
        return z


def pruned(density: float) -> nn.Module:
    torch.manual_seed(0)
    model = Net()
    pk.prune(model, pk.Masks.dense(model), density).apply_(model)
    return model


def swapped(model: nn.Module) -> list[str]:
    """Return the layers that run on kernels; the network itself may have a plan, too."""
    return [name for name, module in model.named_modules() if name and "forward" in vars(module)]


@needs_kernels
@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (2, 3, 7, 33)])
def test_outputs_are_the_same_at_any_size(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "GAIN", 1e9)  # every layer that can be sparse is
    model = pruned(0.2)
    fast = pk.sparse.compile(model, torch.rand(1, 3, 16, 16))
    assert swapped(fast) == ["conv", "deep", "head"]
    x = torch.rand(shape)
    with torch.no_grad():
        assert torch.allclose(fast(x), model.eval()(x), atol=1e-5)


@needs_kernels
def test_the_model_stays_and_the_copy_has_its_names_and_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "GAIN", 1e9)
    model = pruned(0.2)
    before = copy.deepcopy(model.state_dict())
    fast = pk.sparse.compile(model, torch.rand(1, 3, 16, 16))
    assert model.training and not fast.training and swapped(model) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert list(fast.state_dict()) == list(before)
    assert [type(module) for module in fast.modules()] == [type(module) for module in model.modules()]


@needs_kernels
def test_a_copy_of_the_copy_does_not_lean_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "GAIN", 1e9)
    fast = pk.sparse.compile(pruned(0.2), torch.rand(1, 3, 16, 16))
    other = copy.deepcopy(fast)
    assert vars(other.conv)["forward"].layer is other.conv


@needs_kernels
def test_the_faster_way_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(memo: Memo, what: object, ways: Callable[[], Sequence[Any]]) -> list[float]:
        return [1.0, 0.9 if isinstance(ways()[1].func, SparseConv2d) else 0.96]

    monkeypatch.setattr(Memo, "seconds", seconds)
    assert swapped(pk.sparse.compile(pruned(0.2), torch.rand(1, 3, 16, 16))) == ["conv", "deep"]


@needs_kernels
def test_calls_of_one_layer_are_judged_together(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([[1.0, 0.1], [1.0, 1.7]])
    monkeypatch.setattr(Memo, "seconds", lambda memo, what, ways: next(seconds))
    layer = nn.Linear(8, 8)
    pk.prune(layer, pk.Masks.dense(layer), 0.2).apply_(layer)
    assert swapped(pk.sparse.compile(nn.Sequential(layer, layer), torch.rand(5, 8))) == ["0"]


@needs_kernels
def test_a_layer_may_be_called_by_keyword(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "GAIN", 1e9)

    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(input=x)
            return y

    model = Keyword()
    pk.prune(model, pk.Masks.dense(model), 0.2).apply_(model)
    x = torch.rand(5, 8)
    fast = pk.sparse.compile(model, x)
    assert swapped(fast) == ["layer"]
    with torch.no_grad():
        assert torch.allclose(fast(x), model(x), atol=1e-6)


def test_dense_layers_are_not_even_tried() -> None:
    assert swapped(pk.sparse.compile(Net(), torch.rand(1, 3, 16, 16))) == []


@needs_kernels
def test_gradients_take_the_dense_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "GAIN", 1e9)
    fast = pk.sparse.compile(pruned(0.2), torch.rand(1, 3, 16, 16))
    fast(torch.rand(1, 3, 8, 8)).sum().backward()
    assert fast.get_parameter("conv.weight").grad is not None


@needs_kernels
def test_a_layer_used_twice_and_tied_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "GAIN", 1e9)
    torch.manual_seed(0)
    layer = nn.Linear(8, 8)
    pk.prune(layer, pk.Masks.dense(layer), 0.2).apply_(layer)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    x = torch.rand(5, 8)
    with torch.no_grad():
        assert torch.allclose(pk.sparse.compile(model, x)(x), model(x), atol=1e-6)


@needs_kernels
def test_layers_on_kernels_do_not_stand_in_the_way_of_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "GAIN", 1e9)
    monkeypatch.setattr(building, "GAIN", 1e9)
    monkeypatch.setattr(planned, "GAIN", 1e9)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 3, 3, padding=1))
    pk.prune(model, pk.Masks.dense(model), 0.2).apply_(model)
    fast = pk.sparse.compile(model, torch.rand(1, 3, 16, 16))
    assert swapped(fast) == ["0", "2"]
    assert isinstance(vars(fast)["forward"], planned.Planned)
