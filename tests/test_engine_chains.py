"""Which chains plans have, and what plans do beside computing: memory, threads, what they refuse."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spelling import (
    NORMS,
    agree,
    block,
    conv,
    gelu_gate,
    heads_first,
    image,
    linear_blocks,
    norms_of_the_product,
    sparse,
    tokens_first,
)
from torch import Tensor, nn

from prunekit.native import kernels
from prunekit.sparse.engine import build as building
from prunekit.sparse.engine.maps import Kind
from prunekit.sparse.engine.plan import Plan

pytestmark = pytest.mark.skipif(kernels() is None, reason="the kernels were not built: no C compiler at install")


def kinds(made: Plan) -> list[str]:
    return [" ".join(map.kind.name for map in chain.maps) for chain in made.chains]


def all_dense(needed: Any, memo: Any) -> None:
    for map in needed.maps:
        if map.kind == Kind.SPARSE:
            map.kind = Kind.DENSE


@pytest.mark.parametrize("dense", [False, True])
def test_what_attention_makes_of_its_sums_takes_no_call_of_torch(
    dense: bool, plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "_choose_dense", all_dense if dense else lambda needed, memo: None)

    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.first(x)
        q, k, v = m.qkv(y).flatten(2).chunk(3, 1)
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * m.temperature[0]
        return y + m.out((scores.softmax(-1) @ v).view(y.shape))

    made = plan(block(forward), image(2, 3, 8, 9))
    assert kinds(made) == [
        "DENSE SUM SUM GRAM" if dense else "SPARSE SUM SUM GRAM",
        "DENSE",
    ]  # which has the weights of the last convolution in it
    assert [node.target for node in made.operators] == [torch.ops.aten.convolution.default]  # the first, which is dense


def test_rectified_sums_and_maps_side_by_side_have_no_pass_of_their_own(
    plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "_choose_dense", lambda needed, memo: None)
    model = block(lambda m, x: m.out(torch.cat((F.relu(m.out(m.first(x)) + m.first(x)), x), 1)[:, :8]))
    assert kinds(plan(model, image(1, 3, 8, 9))) == ["SPARSE JOIN SPARSE"]


@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_is_one_map_however_it_is_spelt(norm: Any, plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_choose_dense", lambda needed, memo: None)
    model = block(lambda m, x: m.out(norm(m, m.first(x))))
    assert kinds(plan(model, image(1, 3, 8, 9))) == ["NORM SPARSE"]


@pytest.mark.parametrize("attention", [heads_first, tokens_first, norms_of_the_product])
def test_attention_is_two_chains_however_it_is_spelt(
    attention: Any, plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "_choose_dense", lambda needed, memo: None)
    model = block(lambda m, x: attention(m, m.first(x)))
    first, second = kinds(plan(model, image(2, 3, 8, 9)))
    assert sorted(first.split()) == ["DEPTHWISE"] * 3 + ["GRAM", "SPARSE", "SUM", "SUM"]
    assert second == "DENSE SPARSE"


def test_a_block_of_linear_layers_is_one_chain(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_choose_dense", lambda needed, memo: None)
    assert kinds(plan(block(linear_blocks), image(1, 3, 8, 9))) == ["NORM SPARSE ACTIVATE SPARSE"]


def test_a_sum_between_two_depthwise_convolutions_ends_a_chain(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_choose_dense", lambda needed, memo: None)

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.first(x)
        for _ in range(3):
            x = x + m.out(m.wide(x))
        return m.up(x)

    model = block(forward, wide=conv(8, 8, 7, 8))
    assert kinds(plan(model, image(1, 3, 20, 9))) == ["DEPTHWISE SPARSE"] * 2 + ["DEPTHWISE SPARSE SPARSE"]


def test_a_gate_after_a_depthwise_convolution_is_part_of_it(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_choose_dense", lambda needed, memo: None)
    model = block(lambda m, x: gelu_gate(m, m.first(x)))
    assert kinds(plan(model, image(1, 3, 8, 9))) == ["SPARSE DEPTHWISE SPARSE"]


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: torch.cat([x, x], 1)[:, ::2],
        lambda x: x[:1].expand(2, -1, -1, -1),
    ],
)
def test_inputs_may_lie_anyhow(change: Callable[[Tensor], Tensor], plan: Any) -> None:
    model, x = block(lambda m, x: heads_first(m, m.first(x)).reshape(2, -1)), image(2, 3, 6, 10)
    agree(plan(model, x)(change(x)), model, change(x))
    agree(plan(model, change(x))(x), model, x)


def test_an_output_stays_what_it_was(plan: Any) -> None:
    model, x = block(lambda m, x: m.out(m.first(x))), image(1, 3, 16, 16)
    made = plan(model, x)
    first = made(x)
    before = first.clone()
    made(x * 2)
    assert torch.equal(first, before) and first.is_contiguous()


def test_two_threads_call_one_plan(plan: Any) -> None:
    model, x = block(lambda m, x: heads_first(m, m.first(x))), image(1, 3, 32, 32)
    made = plan(model, x)
    inputs = [x * (1 + i) for i in range(4)]
    found: list[list[Tensor]] = [[] for _ in inputs]

    def work(place: int) -> None:
        found[place] = [made(inputs[place]) for _ in range(8)]

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outputs, given in zip(found, inputs, strict=True):
        assert len(outputs) == 8
        agree(outputs[0], model, given)
        assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_one_layer_may_be_in_two_places(plan: Any) -> None:
    shared = conv(8, 8)
    model, x = sparse(nn.Sequential(conv(3, 8, 3), shared, nn.ReLU(), shared)), image(1, 3, 8, 8)
    agree(plan(model, x)(x), model, x)


@pytest.mark.parametrize(
    ("forward", "error"),
    [
        (lambda m, x: m.out(m.first(x)) if x.sum() > 0 else x, Exception),
        (lambda m, x: m.out(m.first(x.relu_())), ValueError),
        (lambda m, x: m.out(m.first(x)) + m.count.add_(1), ValueError),
    ],
)
def test_what_a_plan_would_get_wrong_gets_none(forward: Any, error: type[Exception], plan: Any) -> None:
    model = block(forward)
    model.register_buffer("count", torch.zeros(()))
    with pytest.raises(error):
        plan(model, image(1, 3, 8, 8))


def test_tracing_leaves_nothing_behind(plan: Any) -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.mean = conv(3, 8), torch.zeros(1, 3, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.mean = self.mean.type_as(x)
            self.last: Tensor = self.conv(x - self.mean)
            return self.last

    model, x = sparse(Remembers()), image(1, 3, 8, 8)
    made = plan(model, x)
    assert type(model.mean) is Tensor and not hasattr(model, "last")
    agree(made(x), model, x)


def test_noise_is_new_each_time(plan: Any) -> None:
    model, x = block(lambda m, x: m.out(m.first(x)) + torch.rand_like(m.weight)[:, None, None]), image(1, 3, 8, 8)
    made = plan(model, x)
    assert not torch.equal(made(x), made(x))


def test_another_default_type_changes_nothing(plan: Any) -> None:
    model, x = block(lambda m, x: heads_first(m, m.first(x))), image(1, 3, 8, 8)
    torch.set_default_dtype(torch.float64)
    try:
        agree(plan(model, x)(x), model, x)
    finally:
        torch.set_default_dtype(torch.float32)
