"""PromptIR in tiles, with what it takes from the whole image: the averages that choose its prompts, and its attention.

PromptIR mixes its prompts by the average of its features, and its attention mixes channels by sums over all pixels. A
tile alone would have its own, and neighbours would not agree: of haze, which is one thing all over an image, each tile
would take away another amount. Here tiles are looked at first, the sums are taken over all of them, and what follows
from them becomes constant. What is left is local, so that tiles agree where they overlap.

Axes: b batch, p pixels, s prompts, n heads, d and e channels of one head.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import final

from torch import Tensor, nn

from prunekit.imaging import ImageCall
from prunekit_mir_l.blocks import Attention, Prompt
from prunekit_mir_l.images import Pixels
from prunekit_mir_l.tiles import restored_floats

SURVEYED = 16
"""Tiles that are looked at, at most."""


def of_whole_image(
    model: nn.Module, call: ImageCall, tiles: Sequence[Pixels], *, looked_at: int = SURVEYED
) -> nn.Module:
    """Return a copy of PromptIR for the tiles of one image; any other network itself.

    While the sums are taken each tile still has its own in the layers before: an approximation, but for haze the
    difference between 19 and 35 dB from what the network makes of the whole image at once.

    Args:
        model: the network, in eval mode.
        call: how it wants to be called.
        tiles: parts of the image, in the network's channels, of one size.
        looked_at: how many of them the sums are taken over, at most, spread over the image; more cost as much time
            again as restoring them, and bring the result no nearer.
    """
    if len(tiles) < 2 or not any(isinstance(module, Attention | Prompt) for module in model.modules()):
        return model
    count = min(len(tiles), looked_at)
    with _watched(model) as sums:
        for i in range(count):
            restored_floats(model, call, tiles[i * len(tiles) // count])
    return _fixed(model, sums)


@final
@dataclass
class _Sums:
    """Totals over tiles of what a layer takes from all pixels."""

    total: list[Tensor] = field(default_factory=list)
    tiles: int = 0

    def add(self, some: Sequence[Tensor]) -> None:
        self.total = [a + b for a, b in zip(self.total, some, strict=True)] if self.total else list(some)
        self.tiles += 1


@contextmanager
def _watched(model: nn.Module) -> Iterator[dict[str, _Sums]]:
    """Take the sums of every layer that needs them, while the network runs."""
    sums = {name: _Sums() for name, module in model.named_modules() if isinstance(module, Attention | Prompt)}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, Prompt):
            hooks.append(module.linear_layer.register_forward_pre_hook(_average(sums[name])))
        elif isinstance(module, Attention):
            hooks.append(module.qkv_dwconv.register_forward_hook(_products(sums[name], module)))
    try:
        yield sums
    finally:
        for hook in hooks:
            hook.remove()


def _average(sums: _Sums) -> Callable[[nn.Module, tuple[Tensor]], None]:
    return lambda _, given: sums.add(given)


def _products(sums: _Sums, layer: Attention) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
    return lambda _, given, made: sums.add(layer.sums(*layer.heads_of(made)[:2]))


def _fixed(model: nn.Module, sums: dict[str, _Sums]) -> nn.Module:
    """Return a copy that takes prompts and mixtures from the sums, whatever it is given."""
    fixed = copy.deepcopy(model)
    for name, module in fixed.named_modules():
        if isinstance(module, Prompt):
            (total_bc,) = sums[name].total
            share_s = module.linear_layer(total_bc / sums[name].tiles).log_softmax(1)[0]
            module.linear_layer.weight.data.zero_()  # the logarithms of the shares, whatever the features
            module.linear_layer.bias.data.copy_(share_s)
        elif isinstance(module, Attention):
            module.constant = module.shares(*sums[name].total).detach()
    return fixed
