"""PromptIR: a restoration network with prompts, for images damaged in ways it is not told.

Axes: b batch, c channels, h height, w width.

Reference:
    Potlapalli et al., "PromptIR: Prompting for All-in-One Blind Image Restoration", NeurIPS 2023, figure 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from prunekit.errors import RecipeError
from prunekit_mir_l.blocks import Block, Down, PatchEmbed, Prompt, Up, conv


def stack(count: int, channels: int, heads: int) -> nn.Sequential:
    """Return ``count`` transformer blocks, one after another."""
    return nn.Sequential(*(Block(channels, heads) for _ in range(count)))


def _check(
    width: int,
    blocks: Sequence[int],
    refinement: int,
    heads: Sequence[int],
    prompt_channels: Sequence[int],
    prompt_sizes: Sequence[int],
    prompts: int,
) -> None:
    """Refuse numbers that describe no network, before they fail inside one."""
    if width < 2 or width % 2:
        raise RecipeError(f"width must be even and at least 2, not {width}: each step down halves it before shuffling.")
    lists = {"blocks": (blocks, 4), "heads": (heads, 4), "prompt_channels": (prompt_channels, 3)}
    for name, (values, length) in (lists | {"prompt_sizes": (prompt_sizes, 3)}).items():
        if len(values) != length or min(values) < (name != "blocks"):
            raise RecipeError(
                f"{name} must be {length} positive whole numbers, one for each level, not {list(values)}."
            )
    if refinement < 0 or prompts < 1:
        raise RecipeError(f"there must be at least 0 refinement blocks and 1 prompt, not {refinement} and {prompts}.")


@final
class PromptIR(nn.Module):
    """Restore RGB images; the parameter names are those of the published checkpoints.

    In training mode some convolutions are computed together with what follows, so hooks on them see nothing; in
    evaluation mode every used module is called. The two agree to rounding.

    Args:
        width: channels of level 1; level l has ``width * 2 ** (l - 1)``; even.
        blocks: transformer blocks of the four levels; the last is the latent, the others serve encoder and decoder.
        refinement: transformer blocks after the decoder.
        heads: attention heads of the four levels.
        prompt_heads: attention heads of the three blocks that read a prompt.
        prompt_channels: channels of the prompts that join levels 1, 2 and 3 of the decoder.
        prompt_sizes: height and width of the same prompts, in pixels.
        prompts: how many prompts each of the three mixes.
        unused: keep the six convolutions that the published network holds and never runs (215,296 parameters that
            count in its published size); its checkpoints need them.

    Raises:
        RecipeError: heads do not divide the channels they share, or a number is out of range.

    Example:
        >>> net = PromptIR(width=8, blocks=(1, 1, 1, 1), refinement=1, heads=(1, 1, 1, 1),
        ...                prompt_channels=(8, 8, 16), prompt_sizes=(8, 4, 2), unused=False)
        >>> net(torch.zeros(1, 3, 16, 24)).shape
        torch.Size([1, 3, 16, 24])
    """

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
        _check(width, blocks, refinement, heads, prompt_channels, prompt_sizes, prompts)
        widths = (width, 2 * width, 4 * width, 8 * width)
        self.patch_embed = PatchEmbed(width)
        self.prompt1, self.prompt2, self.prompt3 = (
            Prompt(features, channels, size, prompts)
            for features, channels, size in zip(widths[1:], prompt_channels, prompt_sizes, strict=True)
        )
        self._add_encoder(widths, blocks, heads, prompt_channels if unused else None)
        self._add_decoder(widths, blocks, heads, prompt_channels, prompt_heads)
        self.refinement = stack(refinement, 2 * width, heads[0])
        self.output = conv(2 * width, 3, 3)

    def _add_encoder(
        self, widths: Sequence[int], blocks: Sequence[int], heads: Sequence[int], unused: Sequence[int] | None
    ) -> None:
        """Add the way down, in the published order; ``unused`` has the prompt channels if those parts are wanted."""
        w1, w2, w3, w4 = widths
        if unused:
            p1, p2, p3 = unused
            self.chnl_reduce1 = conv(p1, p1, 1)
            self.chnl_reduce2 = conv(p2, p2, 1)
            self.chnl_reduce3 = conv(p3, 2 * p2, 1)
            self.reduce_noise_channel_1 = conv(w1 + p1, w1, 1)
        self.encoder_level1 = stack(blocks[0], w1, heads[0])
        self.down1_2 = Down(w1)
        if unused:
            self.reduce_noise_channel_2 = conv(w2 + p2, w2, 1)
        self.encoder_level2 = stack(blocks[1], w2, heads[1])
        self.down2_3 = Down(w2)
        if unused:
            self.reduce_noise_channel_3 = conv(w3 + 2 * p2, w3, 1)
        self.encoder_level3 = stack(blocks[2], w3, heads[2])
        self.down3_4 = Down(w3)
        self.latent = stack(blocks[3], w4, heads[3])

    def _add_decoder(
        self,
        widths: Sequence[int],
        blocks: Sequence[int],
        heads: Sequence[int],
        prompt_channels: Sequence[int],
        prompt_heads: int,
    ) -> None:
        """Add the way up, in the published order."""
        _, w2, w3, w4 = widths
        p1, p2, p3 = prompt_channels
        self.up4_3 = Up(w3)
        self.reduce_chan_level3 = conv(w2 + w3, w3, 1)
        self.noise_level3 = Block(w4 + p3, prompt_heads)
        self.reduce_noise_level3 = conv(w4 + p3, w3, 1)
        self.decoder_level3 = stack(blocks[2], w3, heads[2])
        self.up3_2 = Up(w3)
        self.reduce_chan_level2 = conv(w2 + w2, w2, 1)
        self.noise_level2 = Block(w3 + p2, prompt_heads)
        self.reduce_noise_level2 = conv(w3 + p2, w3, 1)
        self.decoder_level2 = stack(blocks[1], w2, heads[1])
        self.up2_1 = Up(w2)
        self.noise_level1 = Block(w2 + p1, prompt_heads)
        self.reduce_noise_level1 = conv(w2 + p1, w2, 1)
        self.decoder_level1 = stack(blocks[0], w2, heads[0])

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Return the restored images.

        Args:
            x_bchw: RGB in [0, 1], floating point; height and width multiples of 8.

        Returns:
            Same shape and dtype, not clamped.
        """
        x_bchw = x_bchw.contiguous(memory_format=torch.channels_last)
        level1 = self.encoder_level1(self.patch_embed(x_bchw))
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        y = self.latent(self.down3_4(level3))

        y = self.noise_level3(torch.cat((y, self.prompt3(y)), 1))
        y = self.up4_3(self.reduce_noise_level3(y))
        y = self.decoder_level3(self.reduce_chan_level3(torch.cat((y, level3), 1)))

        y = self.noise_level2(torch.cat((y, self.prompt2(y)), 1))
        y = self.up3_2(self.reduce_noise_level2(y))
        y = self.decoder_level2(self.reduce_chan_level2(torch.cat((y, level2), 1)))

        y = self.noise_level1(torch.cat((y, self.prompt1(y)), 1))
        y = self.up2_1(self.reduce_noise_level1(y))
        y = self.decoder_level1(torch.cat((y, level1), 1))
        restored_bchw: Tensor = self.output(self.refinement(y)) + x_bchw
        return restored_bchw
