"""Networks in many spellings: planned on the kernels by force, they give what they give dense, in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from spelling import (
    ATTENTIONS,
    NORMS,
    agree,
    block,
    by_layer_norm,
    by_squares,
    by_tokens,
    gelu_gate,
    image,
    linear_blocks,
    norms_of_the_product,
)
from torch import Tensor, nn

from prunekit.native import kernels

pytestmark = pytest.mark.skipif(kernels() is None, reason="the kernels were not built: no C compiler at install")


SIZES = [(1, 3, 16, 32), (2, 3, 17, 23), (3, 3, 9, 1), (1, 3, 1, 40), (1, 3, 1, 1)]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SIZES[1:4])
def test_norms(norm: Any, shape: tuple[int, ...], plan: Any) -> None:
    model = block(lambda m, x: m.out(norm(m, m.first(x))))
    x = image(*shape)
    agree(plan(model, x)(x), model, x)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("shape", SIZES)
def test_attention_across_channels(attention: Any, shape: tuple[int, ...], plan: Any) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.first(x)
        x = x + attention(m, by_squares(m, x))
        return x + gelu_gate(m, by_layer_norm(m, x))

    model, x = block(forward), image(*shape)
    agree(plan(model, x)(x), model, x)


def test_the_parts_of_many_threads_come_together(plan: Any) -> None:
    model, x = block(lambda m, x: norms_of_the_product(m, m.first(x))), image(2, 3, 20, 300)
    torch.set_num_threads(4)
    try:
        agree(plan(model, x)(x), model, x)
    finally:
        torch.set_num_threads(1)


def batch_norms(m: Any, x: Tensor) -> Tensor:
    y = m.norm(m.out(F.relu(m.norm(m.first(x)))))
    return F.relu_(m.norm(m.first(x)) + y)


def halves_of_an_activation(m: Any, x: Tensor) -> Tensor:
    a = F.gelu(m.up(m.first(x)))
    return m.out(a[:, :8] * a[:, 8:])


def the_second_is_activated(m: Any, x: Tensor) -> Tensor:
    y = m.gate(m.up(m.first(x)))
    return m.out(y[:, :8] * F.relu(y[:, 8:]))


def sum_with_factors(m: Any, x: Tensor) -> Tensor:
    y = m.out(m.first(x))
    return torch.sub(torch.add(y, m.out(y), alpha=0.5), y, alpha=2) + torch.rsub(m.weight[:, None, None], y, alpha=2)


def layer_scale(m: Any, x: Tensor) -> Tensor:
    y = m.out(m.first(x))
    return y + m.out(y) * m.weight.view(1, -1, 1, 1) + m.bias[:, None, None]


def statistics_of_a_norm(m: Any, x: Tensor) -> Any:
    y = m.out(m.first(x)).movedim(1, -1)
    return torch.native_layer_norm(y, (8,), m.weight, m.bias, 1e-5)[1:]


def statistics_for_others(m: Any, x: Tensor) -> Any:
    y = m.out(m.first(x))
    return by_squares(m, y), y.mean(1, keepdim=True), m.out(y - y.mean(1, keepdim=True))


def made_inside(m: Any, x: Tensor) -> Tensor:
    y = m.out(m.first(x)) * torch.tensor([2.0, 3.0]).mean()
    return y + torch.arange(8.0, dtype=x.dtype)[:, None, None]


def a_weight_for_a_matrix(m: Any, x: Tensor) -> Tensor:
    b, _, h, w = x.shape
    matrix = (m.temperature @ m.weight[None, :4]).expand(b, 2, 4, 4).flatten(0, 1)
    return m.out(matrix.bmm(m.out(m.first(x)).reshape(-1, 4, h * w)).view(b, 8, h, w))


def scaled(scale: Callable[[Any, Tensor], Tensor], how: Callable[..., Tensor] = torch.mul) -> Callable[..., Tensor]:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.out(m.first(x))
        return m.out(how(y, scale(m, y)))

    return forward


def written(y: Tensor) -> Tensor:
    z = y.clone()
    z[:, :4] = y[:, 4:] * 2
    z[:, 2] += 1
    return z


def attention_of_one_head(m: Any, x: Tensor) -> Tensor:
    y = m.first(x)
    q, k, v = m.qkv(y).flatten(2).chunk(3, 1)
    return y + m.out((torch.softmax(q @ k.mT * m.temperature[0] / 50, -1) @ v).view(y.shape))


def side_by_side(m: Any, x: Tensor) -> Tensor:
    y = m.first(x)
    return m.out(torch.cat((y, m.out(y), x), 1)[:, 5:13]) + m.out(torch.cat((y[:, 2:4], m.out(y)[:, 2:8]), -3))


NETWORKS: dict[str, Callable[..., Any]] = {
    "an output that is the input": lambda m, x: (x, m.out(m.first(x))),
    "a dictionary": lambda m, x: {"map": m.out(m.first(x)), "mean": m.first(x).mean((2, 3)), "three": 3},
    "a weight": lambda m, x: [m.weight, m.out(m.first(x))],
    "two views of one map": lambda m, x: m.qkv(m.first(x)).chunk(3, 1)[::2],
    "one output twice": lambda m, x: [m.out(m.first(x))] * 2,
    "nothing but torch": lambda m, x: x.cumsum(-1).sort(-1)[0],
    "a map and itself": lambda m, x: torch.add(*[m.out(m.first(x))] * 2),
    "square of an activation": lambda m, x: m.out(F.relu(m.out(m.first(x))) ** 2),
    "halves of an activation": halves_of_an_activation,
    "the second is activated": the_second_is_activated,
    "channels that are not neighbours": lambda m, x: m.out(m.up(m.first(x)).unflatten(1, (8, 2))[:, :, 1]),
    "shuffled channels": lambda m, x: m.out(m.out(m.first(x)).unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)),
    "transposed image": lambda m, x: m.out(m.out(m.first(x)).transpose(2, 3)),
    "relu in place": lambda m, x: m.out(F.relu(m.up(m.first(x)), inplace=True)[:, 4:12].relu_().mul_(2)),
    "written parts": lambda m, x: written(m.out(m.first(x))),
    "a view that no rule follows": lambda m, x: m.out(m.first(x)).view(x.shape[0], -1).view(x.shape[0], 2, -1).sum(1),
    "scale of what is gathered": scaled(lambda m, y: y.mean((2, 3), keepdim=True)),
    "scale of torch's": scaled(lambda m, y: y.amax((2, 3), keepdim=True), torch.div),
    "squeeze and excite": scaled(lambda m, y: torch.sigmoid(m.out(y.mean((2, 3), keepdim=True)))),
    "scale for each image": scaled(lambda m, y: y.mean((1, 2, 3), keepdim=True)),
    "scale for all images": scaled(lambda m, y: y.mean((0, 2, 3), keepdim=True)),
    "scale for each pixel": scaled(lambda m, y: y.mean(1, keepdim=True)),
    "shift of what is gathered": scaled(lambda m, y: y.mean((2, 3), keepdim=True), torch.sub),
    "numbers": lambda m, x: 2.5 - m.out(m.out(m.first(x)) * 2 + 1) / 3 - 1,
    "sum with factors": sum_with_factors,
    "layer scale": layer_scale,
    "norm after norm": lambda m, x: by_layer_norm(m, by_tokens(m, m.out(m.first(x)))),
    "linear layers": linear_blocks,
    "batch norms": batch_norms,
    "statistics of a norm": statistics_of_a_norm,
    "statistics for others": statistics_for_others,
    "double inside": lambda m, x: m.out(m.first(x)).double().mean((2, 3)),
    "sum in double": lambda m, x: m.out(m.first(x)).sum((2, 3), dtype=torch.float64),
    "tanh gelu": lambda m, x: m.out(F.gelu(m.out(m.first(x)), approximate="tanh")),
    "made inside": made_inside,
    "attention of one head": attention_of_one_head,
    "side by side": side_by_side,
    "rows side by side": lambda m, x: m.out(torch.cat((m.first(x), m.out(m.first(x))), 2)),
    "a weight for a matrix": a_weight_for_a_matrix,
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (2, 3, 7, 11)])
def test_what_networks_do(name: str, shape: tuple[int, ...], plan: Any) -> None:
    model, x = block(NETWORKS[name], norm=nn.BatchNorm2d(8)), image(*shape)
    made = plan(model, x)
    agree(made(x), model, x)
    agree(made(x * 1.7), model, x * 1.7)
