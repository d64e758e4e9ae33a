"""Layers and operators of networks, each in many spellings."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


class Of(nn.Module):
    """A network that is a function of its layers and its input."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module | Tensor) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer if isinstance(layer, nn.Module) else nn.Parameter(layer))

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def sparse(model: nn.Module) -> nn.Module:
    """Set a part of each matrix to zero, and make biases and scales that tell an error from a zero."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=random) + (0.1 if tensor.dim() < 2 else -0.4))
                if tensor.dim() > 1 and tensor.numel() > 16:
                    tensor.mul_(torch.rand(tensor.shape, generator=random) < 0.5)
                    tensor.div_(math.sqrt(tensor[0].numel()))
    return model.eval()


def agree(found: Any, model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(x.double())
    pairs = list(zip(tree_leaves(found), tree_leaves(expected), strict=True))
    assert type(found) is type(expected) and pairs
    for ours, theirs in pairs:
        if isinstance(theirs, Tensor):
            assert ours.shape == theirs.shape
            difference, largest = (ours.detach().double() - theirs.detach()).abs().max(), theirs.detach().abs().max()
            assert float(difference) <= 1e-5 * float(largest)
        else:
            assert ours == theirs


def conv(inputs: int, outputs: int, kernel: int = 1, groups: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=bias)


def image(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) - 0.3


def block(function: Callable[..., Any], channels: int = 8, **more: nn.Module | Tensor) -> nn.Module:
    """Layers that most of the networks here have."""
    return sparse(
        Of(
            function,
            first=nn.Conv2d(3, channels, (1, 3), padding=(0, 1), bias=False),  # not square: stays with torch
            qkv=conv(channels, 3 * channels),
            dw=conv(3 * channels, 3 * channels, 3, 3 * channels),
            up=conv(channels, 2 * channels),
            gate=conv(2 * channels, 2 * channels, 3, 2 * channels),
            out=conv(channels, channels),
            temperature=torch.ones(2, 1, 1),
            weight=torch.ones(channels),
            bias=torch.zeros(channels),
            **more,
        )
    )


def by_mean_and_var(m: Any, x: Tensor) -> Tensor:
    unit = (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(1, keepdim=True, unbiased=False) + 1e-5)
    return unit * m.weight[:, None, None] + m.bias[:, None, None]


def by_squares(m: Any, x: Tensor) -> Tensor:
    mu = x.mean(1, keepdim=True)
    var = (x - mu).pow(2).mean(1, keepdim=True)
    y = (x - mu) / (var + 1e-6).sqrt()
    return m.weight.view(1, -1, 1, 1) * y + m.bias.view(1, -1, 1, 1)


def by_product(m: Any, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=1, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(dim=1, keepdim=True) + 1e-5) * m.weight[None, :, None, None]


def by_layer_norm(m: Any, x: Tensor) -> Tensor:
    return F.layer_norm(x.permute(0, 2, 3, 1), m.weight.shape, m.weight, m.bias, 1e-6).permute(0, 3, 1, 2)


def by_tokens(m: Any, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    tokens = F.layer_norm(x.flatten(2).transpose(1, 2), (c,), m.weight, m.bias)
    return tokens.transpose(1, 2).reshape(b, c, h, w)


NORMS = [by_mean_and_var, by_squares, by_product, by_layer_norm, by_tokens]


def heads_first(m: Any, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    q, k, v = m.dw(m.qkv(x)).chunk(3, dim=1)
    q, k, v = (part.reshape(b, 2, c // 2, h * w) for part in (q, k, v))
    mix = torch.softmax(F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * m.temperature, dim=-1)
    return m.out((mix @ v).reshape(b, c, h, w))


def tokens_first(m: Any, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    qkv = m.dw(m.qkv(x)).permute(0, 2, 3, 1).reshape(b, h * w, 3, 2, c // 2).permute(2, 0, 3, 4, 1)
    q, k, v = qkv[0], qkv[1], qkv[2]
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    mix = ((q @ k.transpose(-2, -1)) * m.temperature).softmax(dim=-1)
    y = (v.transpose(-2, -1) @ mix.transpose(-2, -1)).transpose(1, 2).reshape(b, h * w, c)
    return m.out(y.transpose(1, 2).view(b, c, h, w))


def norms_of_the_product(m: Any, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    q, k, v = (part.reshape(b * 2, c // 2, h * w) for part in m.dw(m.qkv(x)).chunk(3, dim=1))
    q_norm, k_norm = torch.linalg.vector_norm(q, dim=-1), k.square().sum(-1).sqrt()
    product = torch.bmm(q, k.transpose(1, 2)) / q_norm[:, :, None] / k_norm[:, None, :]
    return m.out(torch.bmm(product.softmax(-1), v).reshape(b, c, h, w))


def einsum(m: Any, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    q, k, v = m.dw(m.qkv(x)).reshape(b, 3, 2, c // 2, h, w).unbind(1)
    mix = torch.einsum("bndhw,bnehw->bnde", q, k / 7).softmax(-1)
    return m.out(torch.einsum("bnde,bnehw->bndhw", mix, v).reshape(b, c, h, w))


ATTENTIONS = [heads_first, tokens_first, norms_of_the_product, einsum]


def gelu_gate(m: Any, x: Tensor) -> Tensor:
    a, b = m.gate(m.up(x)).chunk(2, dim=1)
    return m.out(F.gelu(a) * b)


def linear_blocks(m: Any, x: Tensor) -> Tensor:
    y = by_layer_norm(m, m.first(x)).permute(0, 2, 3, 1)
    y = F.linear(F.gelu(F.linear(y, m.up.weight.flatten(1), m.up.bias)), m.out.weight.flatten(1).repeat(1, 2))
    return m.first(x) + (y * m.weight).permute(0, 3, 1, 2)
