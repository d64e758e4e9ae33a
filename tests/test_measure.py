"""Multiply-adds that torch's own counter does not see."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunekit.measure import count_macs


class Attention(nn.Module):
    def forward(self, x_bnlc: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(x_bnlc, x_bnlc, x_bnlc)


def test_fused_attention_counts_as_its_two_products() -> None:
    heads, length, width = 2, 5, 3
    expected = 2 * heads * length * length * width
    assert count_macs(Attention(), torch.rand(1, heads, length, width)).dense == expected


def test_an_encoder_layer_is_counted_and_its_fast_path_comes_back() -> None:
    length, width, hidden = 5, 4, 8
    layer = nn.TransformerEncoderLayer(width, 2, hidden, batch_first=True)
    expected = length * width * (3 * width + width + 2 * hidden) + 2 * length * length * width
    assert count_macs(layer, torch.rand(1, length, width)).dense == expected
    assert torch.backends.mha.get_fastpath_enabled()
