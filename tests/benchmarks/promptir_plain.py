"""PromptIR one textbook operation after another: the frozen baseline that speed is measured against.

Do not make this file faster. Entry names equal those of the fast network, so one state dict serves both.

Axes: b batch, c channels, h height, w width, n heads, d channels of a head, p pixels (h * w), s prompts.

Reference:
    Potlapalli et al., "PromptIR", NeurIPS 2023; Zamir et al., "Restormer", CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int, *, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)


class Affine(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))


class Norm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = Affine(channels)

    def forward(self, x_bchw: Tensor) -> Tensor:
        mean_b1hw = x_bchw.mean(1, keepdim=True)
        var_b1hw = x_bchw.var(1, keepdim=True, unbiased=False)
        unit_bchw = (x_bchw - mean_b1hw) / torch.sqrt(var_b1hw + 1e-5)
        return unit_bchw * self.body.weight[:, None, None] + self.body.bias[:, None, None]


class Attention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = conv(channels, 3 * channels, 1)
        self.qkv_dwconv = conv(3 * channels, 3 * channels, 3, groups=3 * channels)
        self.project_out = conv(channels, channels, 1)

    def forward(self, x_bchw: Tensor) -> Tensor:
        b, c, h, w = x_bchw.shape
        q, k, v = self.qkv_dwconv(self.qkv(x_bchw)).chunk(3, dim=1)
        q_bndp = F.normalize(q.reshape(b, self.heads, c // self.heads, h * w), dim=-1)
        k_bndp = F.normalize(k.reshape(b, self.heads, c // self.heads, h * w), dim=-1)
        v_bndp = v.reshape(b, self.heads, c // self.heads, h * w)
        mix_bndd = torch.softmax(q_bndp @ k_bndp.transpose(-2, -1) * self.temperature, dim=-1)
        return self.project_out((mix_bndd @ v_bndp).reshape(b, c, h, w))


class FeedForward(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = int(2.66 * channels)
        self.project_in = conv(channels, 2 * hidden, 1)
        self.dwconv = conv(2 * hidden, 2 * hidden, 3, groups=2 * hidden)
        self.project_out = conv(hidden, channels, 1)

    def forward(self, x_bchw: Tensor) -> Tensor:
        gate, value = self.dwconv(self.project_in(x_bchw)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class Block(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = Norm(channels)
        self.attn = Attention(channels, heads)
        self.norm2 = Norm(channels)
        self.ffn = FeedForward(channels)

    def forward(self, x_bchw: Tensor) -> Tensor:
        x_bchw = x_bchw + self.attn(self.norm1(x_bchw))
        return x_bchw + self.ffn(self.norm2(x_bchw))


class Prompt(nn.Module):
    def __init__(self, features: int, channels: int, size: int, prompts: int) -> None:
        super().__init__()
        self.prompt_param = nn.Parameter(torch.rand(1, prompts, channels, size, size))
        self.linear_layer = nn.Linear(features, prompts)
        self.conv3x3 = conv(channels, channels, 3)

    def forward(self, x_bchw: Tensor) -> Tensor:
        weight_bs = torch.softmax(self.linear_layer(x_bchw.mean((2, 3))), dim=1)
        prompt_bchw = (weight_bs[:, :, None, None, None] * self.prompt_param).sum(1)
        prompt_bchw = F.interpolate(prompt_bchw, x_bchw.shape[2:], mode="bilinear", align_corners=False)
        return self.conv3x3(prompt_bchw)


class PatchEmbed(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = conv(3, channels, 3)

    def forward(self, x_bchw: Tensor) -> Tensor:
        return self.proj(x_bchw)


class Down(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, channels // 2, 3), nn.PixelUnshuffle(2))

    def forward(self, x_bchw: Tensor) -> Tensor:
        return self.body(x_bchw)


class Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, 2 * channels, 3), nn.PixelShuffle(2))

    def forward(self, x_bchw: Tensor) -> Tensor:
        return self.body(x_bchw)


def stack(count: int, channels: int, heads: int) -> nn.Sequential:
    return nn.Sequential(*(Block(channels, heads) for _ in range(count)))


class PlainPromptIR(nn.Module):
    """PromptIR as the specification reads, without any thought for speed."""

    def __init__(
        self,
        *,
        width: int = 48,
        blocks: Sequence[int] = (4, 6, 6, 8),
        refinement: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        prompt_heads: int = 4,
        prompt_channels: Sequence[int] = (64, 128, 320),
        prompt_sizes: Sequence[int] = (64, 32, 16),
        prompts: int = 5,
        unused: bool = True,
    ) -> None:
        super().__init__()
        w1, w2, w3, w4 = (width * 2**i for i in range(4))
        p1, p2, p3 = prompt_channels
        s1, s2, s3 = prompt_sizes
        self.patch_embed = PatchEmbed(w1)
        self.prompt1 = Prompt(w2, p1, s1, prompts)
        self.prompt2 = Prompt(w3, p2, s2, prompts)
        self.prompt3 = Prompt(w4, p3, s3, prompts)
        if unused:
            self.chnl_reduce1 = conv(p1, p1, 1)
            self.chnl_reduce2 = conv(p2, p2, 1)
            self.chnl_reduce3 = conv(p3, 2 * p2, 1)
            self.reduce_noise_channel_1 = conv(w1 + p1, w1, 1)
            self.reduce_noise_channel_2 = conv(w2 + p2, w2, 1)
            self.reduce_noise_channel_3 = conv(w3 + 2 * p2, w3, 1)
        self.encoder_level1 = stack(blocks[0], w1, heads[0])
        self.down1_2 = Down(w1)
        self.encoder_level2 = stack(blocks[1], w2, heads[1])
        self.down2_3 = Down(w2)
        self.encoder_level3 = stack(blocks[2], w3, heads[2])
        self.down3_4 = Down(w3)
        self.latent = stack(blocks[3], w4, heads[3])
        self.noise_level3 = Block(w4 + p3, prompt_heads)
        self.reduce_noise_level3 = conv(w4 + p3, w3, 1)
        self.up4_3 = Up(w3)
        self.reduce_chan_level3 = conv(w2 + w3, w3, 1)
        self.decoder_level3 = stack(blocks[2], w3, heads[2])
        self.noise_level2 = Block(w3 + p2, prompt_heads)
        self.reduce_noise_level2 = conv(w3 + p2, w3, 1)
        self.up3_2 = Up(w3)
        self.reduce_chan_level2 = conv(w2 + w2, w2, 1)
        self.decoder_level2 = stack(blocks[1], w2, heads[1])
        self.noise_level1 = Block(w2 + p1, prompt_heads)
        self.reduce_noise_level1 = conv(w2 + p1, w2, 1)
        self.up2_1 = Up(w2)
        self.decoder_level1 = stack(blocks[0], w2, heads[0])
        self.refinement = stack(refinement, w2, heads[0])
        self.output = conv(w2, 3, 3)

    def forward(self, x_bchw: Tensor) -> Tensor:
        level1 = self.encoder_level1(self.patch_embed(x_bchw))
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        x = self.latent(self.down3_4(level3))

        x = self.noise_level3(torch.cat([x, self.prompt3(x)], 1))
        x = self.up4_3(self.reduce_noise_level3(x))
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat([x, level3], 1)))

        x = self.noise_level2(torch.cat([x, self.prompt2(x)], 1))
        x = self.up3_2(self.reduce_noise_level2(x))
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat([x, level2], 1)))

        x = self.noise_level1(torch.cat([x, self.prompt1(x)], 1))
        x = self.up2_1(self.reduce_noise_level1(x))
        x = self.decoder_level1(torch.cat([x, level1], 1))
        return self.output(self.refinement(x)) + x_bchw
