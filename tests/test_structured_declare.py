"""Declarations: what a module says of its channels, however it is said, and how a wrong one is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from finding import find
from torch import Tensor, nn

from prunekit import Channels
from prunekit.amount import Density
from prunekit.calibration import Calibration
from prunekit.errors import SelectionError
from prunekit.score import magnitude
from prunekit.shape import Shape
from prunekit.structured.declare import declarations, read
from prunekit.structured.pruner import Structured

TOKENS = torch.zeros(1, 3, 2)


class Heads(nn.Module):
    """Two heads, whose width the code has as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(4, 8, bias=False), nn.Linear(8, 4, bias=False)
        self.width, self.heads = 4, 2

    def forward(self, x_bnc: Tensor) -> Tensor:
        b, n, _ = x_bnc.shape
        x = self.into(x_bnc).reshape(b, n, self.heads, self.width).softmax(2)
        return self.out(x.reshape(b, n, self.heads * self.width))


class Declaring(Heads):
    """The same, saying so."""

    prunekit_channels = Channels(sizes={"width": "out.weight:1 / heads"})


def network(kind: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 4, bias=False), kind(), nn.Linear(4, 1, bias=False))


def cut(net: nn.Module, declared: Any = None, density: float = 0.3) -> Shape:
    pruner = Structured(magnitude(), across="local", declared=declared)
    return pruner.cut(net, pruner.start(net), Density(density), Calibration([TOKENS]))


def test_a_class_declares_what_its_code_counts() -> None:
    net = network(Declaring)
    shape = cut(net)
    assert shape.attributes["1.width"] == 2
    assert len(shape.indices["1.into.weight"][0]) == 4
    shape.apply_(net)
    assert net(TOKENS).shape == (1, 3, 1)
    assert (net[1].width, net[1].heads) == (2, 2)


@pytest.mark.parametrize("key", [Heads, f"{Heads.__module__}:Heads"])
@pytest.mark.parametrize(
    "declared", [Channels(sizes={"width": "out.weight:1 / 2"}), {"sizes": {"width": "out.weight:1 / heads"}}]
)
def test_it_is_declared_for_other_peoples_classes(key: Any, declared: Any) -> None:
    assert cut(network(Heads), {key: declared}).attributes["1.width"] == 2


def test_the_callers_declaration_wins_over_the_class() -> None:
    shape = cut(network(Declaring), {Declaring: Channels(keep=("into.weight",))}, density=0.8)
    assert "1.into.weight" not in shape.indices
    assert "1.width" not in shape.attributes


def test_known_ones_need_no_declaration() -> None:
    timm = pytest.importorskip("timm")
    block = timm.layers.Attention(8, num_heads=2)
    (found,) = declarations(block, {})
    assert found[0] == "" and found[1] is block
    assert found[2].sizes["head_dim"] == "proj.weight:1 / num_heads"


class Pair(nn.Module):
    """Two parameters of which no operator shows that they belong together."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(2, 4, bias=False), nn.Linear(2, 4, bias=False)
        self.left, self.right = nn.Linear(4, 1, bias=False), nn.Linear(4, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.left(self.one(x)) + self.right(self.other(x))


def axes(declared: Channels) -> tuple[dict[str, list[int]], list[list[list[int]]]]:
    found = find(Pair(), TOKENS, declared={Pair: declared})
    ties = [[lane.tolist() for lane in tie] for tie in found.ties]
    return {f"{name}:{axis}": ids.tolist() for (name, axis), ids in found.axes.items()}, ties


def test_nothing_declared_is_nothing_known() -> None:
    found, ties = axes(Channels())
    assert found["one.weight:0"] == found["left.weight:1"] == [1, 2, 3, 4]
    assert found["other.weight:0"] == found["right.weight:1"] == [5, 6, 7, 8]
    assert ties == []


def test_axes_together_go_index_by_index() -> None:
    found, ties = axes(Channels(together=(("one.weight:0", "other.weight:0"),)))
    assert list(found.values()) == [[1, 2, 3, 4]] * 4
    assert ties == []


def test_axes_in_proportion_are_lanes_of_a_tie() -> None:
    found, ties = axes(Channels(in_proportion=(("one.weight:0", "other.weight:0"),)))
    assert found["one.weight:0"] == [1, 2, 3, 4]
    assert found["other.weight:0"] == [5, 6, 7, 8]
    assert ties == [[[1, 2, 3, 4], [5, 6, 7, 8]]]


def test_what_is_to_be_kept_stays() -> None:
    assert set(axes(Channels(keep=("one.weight",)))[0]) == {"other.weight:0", "right.weight:1"}


def test_a_recipe_spells_a_declaration_as_plain_mappings_and_lists() -> None:
    given = {
        "sizes": {"width": "out.weight:1"},
        "together": [["a.weight:0", "b.weight:0"]],
        "in_proportion": [["a.weight:0", "c.weight:1"]],
        "keep": ["d"],
    }
    expected = Channels(
        sizes={"width": "out.weight:1"},
        together=(("a.weight:0", "b.weight:0"),),
        in_proportion=(("a.weight:0", "c.weight:1"),),
        keep=("d",),
    )
    assert read({"my:Net": given}) == {"my:Net": expected}


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (
            Channels(together=(("one.weight", "other.weight:0"),)),
            "'one.weight', declared for the network, is no axis:",
        ),
        (Channels(keep=("one.wieght",)), "'one.wieght:0' is declared for .* no such parameter; did you mean 'one.weig"),
        (
            Channels(in_proportion=(("one.bias:0",),)),
            "'one.bias:0' is declared for the network, which has no such",
        ),
        (Channels(together=(("one.weight:2",),)), r"'one.weight:2', .*: one.weight has shape \(4, 2\)"),
        (Channels(together=(("one.weight:x",),)), "write 'qkv.weight:0'"),
        (Channels(together=(("one.weight:0", "one.weight:1"),)), "4 and 2"),
    ],
)
def test_what_a_module_lacks_is_refused(declared: Channels, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        axes(declared)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"wdith": "out.weight:1"}, "'wdith' is declared for 1, which has no such size; did you mean '1.width'"),
        ({"width": "out.weight:1 / haeds"}, "'out.weight:1 / haeds', declared for 1: it has no number 'haeds'"),
        ({"width": "aut.weight:1"}, "'aut.weight:1' is declared for 1, .*; did you mean '1.out.weight'"),
        ({"width": "out.weight:1 / 0"}, "it has no number '0'"),
    ],
)
def test_sizes_that_cannot_be_counted_are_refused(sizes: dict[str, str], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        cut(network(Heads), {Heads: Channels(sizes=sizes)})


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"my:Net": {"size": {}}}, "the declaration for my:Net has 'size'; did you mean 'sizes'"),
        ({"my:Net": "sizes"}, "the declaration for my:Net is 'sizes': it must be a mapping"),
        ({"my:Net": {"keep": "one.weight"}}, "the declaration for my:Net: keep must be a list"),
        ({"my:Net": {"together": ["a:0", "b:0"]}}, "the declaration for my:Net: together must be a list of lists"),
        ({"my:Net": {"sizes": ["width"]}}, "the declaration for my:Net: sizes must be a mapping"),
    ],
)
def test_declarations_that_cannot_be_read_are_refused_before_anything_is_cut(declared: Any, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        Structured(magnitude(), declared=declared)


def test_a_declared_class_that_no_module_has_is_refused() -> None:
    with pytest.raises(SelectionError, match="declared: no module of the network is a 'my:Net'"):
        cut(network(Declaring), {"my:Net": Channels()})
