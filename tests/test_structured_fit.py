"""Networks whose code has sizes that no graph shows: more of them stays until it runs, and the user is told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from prunekit.amount import Density
from prunekit.calibration import Calibration
from prunekit.errors import BudgetError, PruneKitWarning, SelectionError
from prunekit.score import magnitude
from prunekit.shape import Shape
from prunekit.structured.fit import find_fitting
from prunekit.structured.pruner import Structured

TOKENS = torch.zeros(1, 3, 2)


def widths(shape: Shape) -> dict[str, int]:
    return {f"{name}:{axis}": len(at) for name, axes in shape.indices.items() for axis, at in axes.items()}


class ByWidth(nn.Module):
    """Attention in two heads whose code computes their width from that of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(8, 24, bias=False), nn.Linear(8, 8, bias=False)

    def forward(self, x_bnc: Tensor) -> Tensor:
        b, n, c = x_bnc.shape
        q, k, v = self.qkv(x_bnc).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        x = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return x_bnc + self.proj(x.transpose(1, 2).reshape(b, n, c))


def test_what_code_computes_from_its_inputs_width_shrinks_in_proportion() -> None:
    net = nn.Sequential(nn.Linear(2, 8, bias=False), ByWidth(), nn.Linear(8, 1, bias=False))
    pruner = Structured(magnitude())
    with pytest.warns(PruneKitWarning, match="ByWidth shrinks as its inputs do. Declare them with prunekit.Channels"):
        shape = pruner.cut(net, pruner.start(net), Density(0.5), Calibration([TOKENS]))
    assert widths(shape) == {
        "0.weight:0": 4,
        "1.qkv.weight:0": 12,
        "1.qkv.weight:1": 4,
        "1.proj.weight:0": 4,
        "1.proj.weight:1": 4,
        "2.weight:1": 4,
    }
    queries = shape.indices["1.qkv.weight"][0].reshape(6, 2)
    assert [row.tolist() for row in queries.div(4, rounding_mode="floor")] == [[head, head] for head in range(6)]


class Written(nn.Module):
    """Heads of a width that the code has as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(4, 6, bias=False), nn.Linear(6, 4, bias=False)
        self.width = 3

    def forward(self, x_bnc: Tensor) -> Tensor:
        b, n, _ = x_bnc.shape
        heads = self.into(x_bnc).reshape(b, n, 2, self.width).softmax(2)
        return self.out(heads.reshape(b, n, 2 * self.width))


def written() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), Written(), nn.Linear(4, 8), nn.Linear(8, 1))


def test_what_code_has_as_a_number_stays_and_the_rest_shrinks() -> None:
    net = written()
    with pytest.warns(PruneKitWarning, match="Written stays whole. Declare"):
        found = find_fitting(net, TOKENS)
    assert {f"{name}:{axis}": ids.tolist() for (name, axis), ids in found.axes.items()} == {
        "0.weight:0": [1, 2, 3, 4],
        "0.bias:0": [1, 2, 3, 4],
        "1.into.weight:1": [1, 2, 3, 4],
        "1.out.weight:0": [5, 6, 7, 8],
        "2.weight:1": [5, 6, 7, 8],
        "2.bias:0": list(range(9, 17)),
        "2.weight:0": list(range(9, 17)),
        "3.weight:1": list(range(9, 17)),
    }
    assert found.ties == []


def test_code_that_demands_its_inputs_width_keeps_it() -> None:
    class Demands(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-1] != 4:
                raise ValueError("four, please")
            return 2 * x

    net = nn.Sequential(nn.Linear(2, 4), Demands(), nn.Linear(4, 6), nn.Linear(6, 1))
    with pytest.warns(PruneKitWarning, match="Demands stays whole, its inputs too"):
        found = find_fitting(net, TOKENS)
    assert {name for name, _ in found.axes} == {"2.weight", "2.bias", "3.weight"}


class Counts(nn.Module):
    """Code that looks at the sizes of a layer inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        if len(self.net[0].weight) < 4:
            raise ValueError("four, please\nand nothing else")
        return self.net(x)


def test_code_that_fails_however_much_stays_is_refused_by_name() -> None:
    net = nn.Sequential(Counts())
    expected = (
        r"the code of 0 \(Counts\) does not take fewer channels \(ValueError: four, please\): it has sizes that no "
        r"parameter shows. Say which with prunekit.Channels, or let its channels stay: exclude: \['0.\*'\]."
    )
    with pytest.raises(SelectionError, match=expected):
        find_fitting(net, TOKENS)
    found = find_fitting(net, TOKENS, exclude=("0.*",))
    assert found.axes == {}


def test_running_out_of_time_is_no_misfit() -> None:
    class Slow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-1] < 4:
                raise BudgetError("that took long")
            return x

    with pytest.raises(BudgetError, match="that took long"):
        find_fitting(nn.Sequential(nn.Linear(2, 4), Slow(), nn.Linear(4, 1)), TOKENS)


def test_code_that_counts_on_equal_shares_is_found_out() -> None:
    class Equal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.out = nn.Linear(4, 12, bias=False), nn.Linear(12, 4, bias=False)

        def forward(self, x_bnc: Tensor) -> Tensor:
            b, n, c = x_bnc.shape
            return self.out(self.into(x_bnc).reshape(b, n, c, 3).relu().reshape(b, n, 3 * c))

    net = nn.Sequential(nn.Linear(2, 4), Equal(), nn.Linear(4, 1))
    with pytest.warns(PruneKitWarning, match="Equal shrinks as its inputs do"):
        found = find_fitting(net, TOKENS)
    lanes = [lane.tolist() for lane in found.ties[0]]
    assert lanes == [[5, 6, 7], [8, 9, 10], [11, 12, 13], [14, 15, 16], [1, 2, 3, 4]]
