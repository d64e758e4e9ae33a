"""The parts of PromptIR: channel norm, attention across channels, gated feed-forward, prompts, and changes of scale.

Axes: b batch, c channels, h height, w width, p pixels (h * w), n heads, d and e channels of one head,
o output channels, s prompts.

Feature maps keep the logical order ``bchw`` but lie in memory channels last. The norm and the attention then read
pixels of contiguous channels through views, and a CPU runs the depthwise and the 1x1 convolutions two to three times
as fast as it does channels first.

Reference:
    Potlapalli et al., "PromptIR: Prompting for All-in-One Blind Image Restoration", NeurIPS 2023, section 3;
    Zamir et al., "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022, section 3.
"""

from __future__ import annotations

from typing import Any, final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from prunekit.errors import RecipeError
from prunekit_mir_l.depthwise import depthwise, gated

EXPANSION = 2.66


def conv(inputs: int, outputs: int, kernel: int, *, groups: int = 1) -> nn.Conv2d:
    """Return the only kind of convolution here: stride 1, size kept, no bias."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)


@final
class ScaleShift(nn.Module):
    """Hold the scale and the shift of a norm, one value per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))


@final
class ChannelNorm(nn.Module):
    """Normalise over channels at each pixel (biased variance, eps 1e-5), then scale and shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = ScaleShift(channels)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Return the normalised map, in the same memory layout."""
        x_bhwc = x_bchw.permute(0, 2, 3, 1)
        y_bhwc = F.layer_norm(x_bhwc, x_bhwc.shape[-1:], self.body.weight, self.body.bias, 1e-5)
        return y_bhwc.permute(0, 3, 1, 2)


@final
class Attention(nn.Module):
    """Attend across channels: each channel of a head becomes a mixture of that head's channels (MDTA).

    Raises:
        RecipeError: ``heads`` does not divide ``channels``.

    Reference:
        Restormer, section 3.1, equation 1, with q and k L2-normalised over pixels and a learnt temperature per head.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise RecipeError(
                f"{heads} attention heads cannot share {channels} channels equally: choose a number of heads that "
                f"divides {channels}, or another width or number of prompt channels."
            )
        self.heads = heads
        self.constant: Tensor | None = None  # a mixture to use in place of the input's own, for the tiles of an image
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = conv(channels, 3 * channels, 1)
        self.qkv_dwconv = conv(3 * channels, 3 * channels, 3, groups=3 * channels)
        self.project_out = conv(channels, channels, 1)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Return the attended map, same shape."""
        b, c, h, w = x_bchw.shape  # q, k and v may have fewer channels than x once they were pruned
        qkv_bchw = self.qkv(x_bchw)
        qkv_bchw = depthwise(qkv_bchw, self.qkv_dwconv.weight) if self.training else self.qkv_dwconv(qkv_bchw)
        q_bpnd, k_bpnd, v_bpnd = self.heads_of(qkv_bchw)
        mix_bnde = self.mixture(q_bpnd, k_bpnd) if self.constant is None else self.constant
        if self.training:  # project the mixtures in place of the pixels, which spares one pass over the map
            project_nod = self.project_out.weight.view(c, self.heads, -1).transpose(0, 1)
            project_bco = (project_nod @ mix_bnde).transpose(2, 3).reshape(b, -1, c)
            y_bpc: Tensor = v_bpnd.flatten(2) @ project_bco
            return y_bpc.view(b, h, w, c).permute(0, 3, 1, 2)
        y_bpnd = (v_bpnd.transpose(1, 2) @ mix_bnde.transpose(2, 3)).transpose(1, 2)
        y_bchw: Tensor = self.project_out(y_bpnd.reshape(b, h, w, -1).permute(0, 3, 1, 2))
        return y_bchw

    def heads_of(self, qkv_bchw: Tensor) -> list[Tensor]:
        """Return q, k and v, each of shape (b, p, n, channels of a head)."""
        b, _, h, w = qkv_bchw.shape
        return [t.permute(0, 2, 3, 1).reshape(b, h * w, self.heads, -1) for t in qkv_bchw.chunk(3, dim=1)]

    def mixture(self, q_bpnd: Tensor, k_bpnd: Tensor) -> Tensor:
        """Return how much of each channel e goes into channel d, softmax over e: shape (b, n, d, e)."""
        return self.shares(*self.sums(q_bpnd, k_bpnd))

    def sums(self, q_bpnd: Tensor, k_bpnd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the mixture needs to know, each a sum over pixels: of q times k, of q squared, of k squared."""
        found: tuple[Tensor, Tensor, Tensor] = (_Sums.apply if self.training else _sums)(q_bpnd, k_bpnd)
        return found

    def shares(self, product_bnde: Tensor, q_bnd: Tensor, k_bne: Tensor) -> Tensor:
        """Return the mixture that those sums make."""
        # Scaling the product by the norms equals normalising q and k first, on d x e values in place of p x d.
        # The floor goes under the root, where its gradient at an all-zero (pruned) channel is 0 and not nan.
        q_scale_bnd1 = q_bnd.clamp_min(1e-24).rsqrt().unsqueeze(3)
        k_scale_bn1e = k_bne.clamp_min(1e-24).rsqrt().unsqueeze(2)
        return torch.softmax(product_bnde * q_scale_bnd1 * (k_scale_bn1e * self.temperature), dim=-1)


def _sums(q_bpnd: Tensor, k_bpnd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q_bnd, k_bne = q_bpnd.square().sum(1), k_bpnd.square().sum(1)
    return q_bpnd.permute(0, 2, 3, 1) @ k_bpnd.transpose(1, 2), q_bnd, k_bne


@final
class _Sums(torch.autograd.Function):
    """Sums over pixels whose slopes lie channels last: autograd's own for q would lie channels first, to be copied."""

    generate_vmap_rule = True

    @staticmethod
    def forward(q_bpnd: Tensor, k_bpnd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _sums(q_bpnd, k_bpnd)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor]:
        q_bpnd, k_bpnd = ctx.saved_tensors
        product_bnde, q_bnd, k_bne = (slope.to(q_bpnd.dtype) for slope in slopes)
        of_q = _slope(q_bpnd, q_bnd, k_bpnd, product_bnde.transpose(2, 3))
        return of_q, _slope(k_bpnd, k_bne, q_bpnd, product_bnde)


def _slope(own_bpnd: Tensor, square_bnd: Tensor, other_bpne: Tensor, product_bned: Tensor) -> Tensor:
    """Return what the slopes of a sum of squares and of a product make of one of the two, by pixels."""
    b, p, n, d = own_bpnd.shape
    of_square = (own_bpnd * (2 * square_bnd).unsqueeze(1)).transpose(1, 2).reshape(b * n, p, d)
    other = other_bpne.transpose(1, 2).reshape(b * n, p, -1)
    of_both = torch.baddbmm(of_square, other, product_bned.reshape(b * n, -1, d))
    return of_both.view(b, n, p, d).transpose(1, 2).contiguous()


@final
class FeedForward(nn.Module):
    """Mix channels through a gated hidden layer (GDFN).

    Reference:
        Restormer, section 3.2, equation 3: exact (erf) GELU of the first half times the second half.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = int(EXPANSION * channels)
        self.project_in = conv(channels, 2 * hidden, 1)
        self.dwconv = conv(2 * hidden, 2 * hidden, 3, groups=2 * hidden)
        self.project_out = conv(hidden, channels, 1)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Return the transformed map, same shape."""
        hidden_bchw = self.project_in(x_bchw)
        if self.training:
            product_bchw = gated(hidden_bchw, self.dwconv.weight)
        else:
            gate_bchw, value_bchw = self.dwconv(hidden_bchw).chunk(2, dim=1)
            product_bchw = F.gelu(gate_bchw) * value_bchw
        y_bchw: Tensor = self.project_out(product_bchw)
        return y_bchw


@final
class Block(nn.Module):
    """One transformer block: attention across channels, then the feed-forward, each behind a norm and added back."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.attn = Attention(channels, heads)
        self.norm2 = ChannelNorm(channels)
        self.ffn = FeedForward(channels)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Return the features after both residual branches, same shape."""
        x_bchw = x_bchw + self.attn(self.norm1(x_bchw))
        y_bchw: Tensor = x_bchw + self.ffn(self.norm2(x_bchw))
        return y_bchw


@final
class Prompt(nn.Module):
    """Choose a mixture of learnt prompts from the features, and resize it to them.

    Reference:
        PromptIR, section 3.1, equations 2 and 3.
    """

    def __init__(self, features: int, channels: int, size: int, prompts: int) -> None:
        super().__init__()
        self.prompt_param = nn.Parameter(torch.rand(1, prompts, channels, size, size))
        self.linear_layer = nn.Linear(features, prompts)
        self.conv3x3 = conv(channels, channels, 3)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Return the prompt map, of ``x_bchw``'s height and width."""
        weight_bs = self.linear_layer(x_bchw.mean((2, 3))).softmax(1)
        prompt_bchw = torch.einsum("bs,schw->bchw", weight_bs, self.prompt_param[0])
        prompt_bchw = prompt_bchw.contiguous(memory_format=torch.channels_last)
        resized_bchw = F.interpolate(prompt_bchw, x_bchw.shape[2:], mode="bilinear", align_corners=False)
        y_bchw: Tensor = self.conv3x3(resized_bchw)
        return y_bchw


@final
class PatchEmbed(nn.Module):
    """Turn the image into features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = conv(3, channels, 3)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Return ``channels`` features at each pixel."""
        y_bchw: Tensor = self.proj(x_bchw)
        return y_bchw


@final
class Down(nn.Module):
    """Halve height and width, double the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, channels // 2, 3), nn.PixelUnshuffle(2))

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Return the map at half the size."""
        y_bchw: Tensor = self.body(x_bchw)
        return y_bchw.contiguous(memory_format=torch.channels_last)


@final
class Up(nn.Module):
    """Double height and width, halve the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, 2 * channels, 3), nn.PixelShuffle(2))

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Return the map at twice the size."""
        y_bchw: Tensor = self.body(x_bchw)
        return y_bchw.contiguous(memory_format=torch.channels_last)
