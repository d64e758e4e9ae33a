"""Operators on few numbers against torch in float64: any look at any numbers, and what is left to torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from prunekit.native import kernels
from prunekit.sparse.engine.few import Buffer, Few
from prunekit.sparse.engine.program import pointers

pytestmark = [
    pytest.mark.skipif(kernels() is None, reason="the kernels were not built: no C compiler at install"),
    pytest.mark.usefixtures("every_copy"),
]


def computed(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor | None:
    """Return what the kernels make of a function's operators; None where not all of them are theirs."""
    graph = make_fx(function, tracing_mode="fake")(*inputs).graph
    constants = dict(zip(graph.find_nodes(op="placeholder"), inputs, strict=True))
    few = Few({}, constants, lambda sink: 0)
    for node in graph.nodes:
        if node.op != "call_function" or few.add(node):
            continue
        looks = any(returned.alias_info for returned in node.target._schema.returns)
        if not looks or not constants.keys() >= {*node.all_input_nodes}:
            return None
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), constants.__getitem__)
        constants[node] = node.target(*args, **kwargs)  # another look at an input, which a trace knows already
    tensors = {base: torch.full((base.size,), math.nan) for base in few.bases if isinstance(base, Buffer)}
    few(pointers([tensors.get(base, base) for base in few.bases]))  # type: ignore[call-overload,misc]
    value = few.values[graph.find_nodes(op="output")[0].args[0]]
    look = value.look
    assert isinstance(value.base, Buffer)
    return tensors[value.base].as_strided(look.size(), look.stride(), look.storage_offset())


def check(function: Callable[..., Tensor], *inputs: Tensor) -> None:
    found, exact = computed(function, *inputs), function(*(x.double() for x in inputs))
    assert found is not None and found.shape == exact.shape
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-6, equal_nan=True)


ELEMENTWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "product": lambda a, b: a * b,
    "sum": lambda a, b: a + b,
    "difference": lambda a, b: a - b,
    "quotient": lambda a, b: a / (b * b + 0.5),
    "with numbers": lambda a, b: (a * 2 + 1 - b) / 3 - 1,
    "norms": lambda a, b: (a * a).clamp_min(1e-2).rsqrt() * (b * b + 1).sqrt(),
}
SIZES = st.lists(st.sampled_from([1, 2, 3, 5, 16, 17]), min_size=0, max_size=4)


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_shapes_that_broadcast_in_any_order_of_dimensions(data: st.DataObject) -> None:
    torch.manual_seed(0)
    function, shape = ELEMENTWISE[data.draw(st.sampled_from(list(ELEMENTWISE)))], data.draw(SIZES)
    inputs = []
    for _ in range(2):
        kept = [size if data.draw(st.booleans()) else 1 for size in shape][data.draw(st.integers(0, len(shape))) :]
        order = data.draw(st.permutations(range(len(kept))))
        inputs.append((torch.randn([kept[i] for i in order]), [order.index(i) for i in range(len(order))]))
    (a, a_order), (b, b_order) = inputs
    check(lambda x, y: function(x.permute(a_order), y.permute(b_order)), a, b)


@given(rows=st.integers(1, 40), columns=st.integers(1, 90), spread=st.sampled_from([1.0, 30.0, 300.0]))
@settings(max_examples=15, deadline=None)
def test_softmax(rows: int, columns: int, spread: float) -> None:
    torch.manual_seed(rows * columns)
    x = torch.randn(columns, rows) * spread
    check(lambda x: torch.softmax(x.t(), -1), x)
    check(lambda x: torch.softmax(x.t() * 2, 1).transpose(0, 1).unsqueeze(0) + 1, x)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("columns", [1, 7, 16, 40])
def test_infinity_and_nan_go_where_they_go_in_torch(bad: float, columns: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, columns)
    x[1, columns // 2] = bad
    x[2] = bad
    check(lambda x: torch.softmax(x * 1, -1), x)
    check(lambda x: x.clamp_min(0.1) * 1, x)
    check(lambda x: (x - x) / x, x)


def test_looks_at_results_in_other_shapes() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4)
    check(lambda x: (x + 1).transpose(1, 2).reshape(2, 12).view(2, 2, 6)[:, 1] * 2, x)
    check(lambda x: (x + 1).permute(2, 0, 1).unsqueeze(0).expand(2, 4, 2, 3).clone(), x)
    check(lambda x: (x + 1).select(1, 2)[..., None] * x.select(0, 1)[2], x)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x + 1).cumsum(0),
        lambda x: torch.add(x, x, alpha=2),
        lambda x: torch.softmax(x * 2, 0),
        lambda x: (x * 2).double() + 1,
        lambda x: torch.zeros(1024, 512) + x.sum(),
        lambda x: torch.cat([x * 2, x]),
    ],
)
def test_the_rest_is_left_to_torch(function: Any) -> None:
    assert computed(function, torch.randn(3, 4)) is None


def test_many_dimensions() -> None:
    x = torch.randn(2, 3, 2, 3, 2, 3)
    check(lambda x: x.permute(5, 3, 1, 4, 2, 0) * x.permute(5, 3, 1, 0, 2, 4), x)
    y = torch.randn(2, 3, 2, 3, 2, 3, 2)
    assert computed(lambda y: (y * 2).permute(6, 4, 2, 0, 5, 3, 1) * 2, y) is None


def test_attention_scores() -> None:
    torch.manual_seed(0)
    gram, q, k = torch.randn(6, 5, 7), torch.rand(2, 3, 5), torch.rand(2, 3, 7)

    def scores(gram: Tensor, q: Tensor, k: Tensor) -> Tensor:
        scale = q.clamp_min(1e-12).rsqrt().unsqueeze(-1) * k.clamp_min(1e-12).rsqrt().unsqueeze(-2)
        return F.softmax(gram.view(2, 3, 5, 7) * scale, -1).transpose(2, 3).reshape(6, 7, 5)

    check(scores, gram, q, k)
