"""Time of a training step with `hold` beside one without, interleaved in one process.

    python tests/benchmarks/hold_overhead.py [--threads 2] [--rounds 5] [--size 64] [--batch 2]

The network has about 35 million convolution weights in about 350 tensors, gated convolution blocks at four
resolutions; AdamW, L1 loss. Half the weights are cut, the density at which a branch per weight would cost most.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from prunekit import Masks, hold, prune

LEVELS = ((48, 10), (96, 30), (192, 30), (384, 17))  # channels, blocks; each level halves the resolution


class Block(nn.Module):
    """x + out(gelu(a) * b), (a, b) = depthwise(in(norm(x)))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = int(2.66 * width)
        self.norm = nn.GroupNorm(1, width)
        self.inner = nn.Conv2d(width, 2 * hidden, 1, bias=False)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.outer = nn.Conv2d(hidden, width, 1, bias=False)
        self.mix = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, width, height, width) to the same shape."""
        first, second = self.depthwise(self.inner(self.norm(x))).chunk(2, dim=1)
        return x + self.mix(self.outer(nn.functional.gelu(first) * second))


def network() -> nn.Module:
    """Blocks at each level, joined by stride-2 convolutions, and one pixel-shuffle back to the image."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, LEVELS[0][0], 3, padding=1, bias=False)]
    for (width, blocks), (wider, _) in zip(LEVELS, (*LEVELS[1:], (24, 0)), strict=True):
        layers += [Block(width) for _ in range(blocks)]
        layers += [nn.Conv2d(width, wider, 2, stride=2, bias=False)] if wider > width else []
    return nn.Sequential(*layers, nn.Conv2d(LEVELS[-1][0], 3 * 64, 1, bias=False), nn.PixelShuffle(8))


def main() -> None:
    """Alternate steps with and without hold, and print both medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    for option, default in (("--threads", 2), ("--rounds", 5), ("--size", 64), ("--batch", 2)):
        parser.add_argument(option, type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = network()
    masks = prune(model, Masks.dense(model), 0.5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
    images = torch.rand(options.batch, 3, options.size, options.size)
    times: dict[bool, list[float]] = {True: [], False: []}
    for attempt in range(options.rounds + 1):
        for held in (True, False):
            with hold(model, masks) if held else nullcontext():
                start = time.perf_counter()
                optimizer.zero_grad()
                nn.functional.l1_loss(model(images), images).backward()
                optimizer.step()
                if attempt:  # the first round warms up
                    times[held].append(time.perf_counter() - start)
    free, held_ = statistics.median(times[False]), statistics.median(times[True])
    each = statistics.median(a / b for a, b in zip(times[True], times[False], strict=True))
    print(f"{masks!r}, batch {options.batch}, {options.size}x{options.size}, {options.threads} threads")
    print(f"without hold {free:.3f} s, with hold {held_:.3f} s, ratio {held_ / free:.3f}; median of pairs {each:.3f}")


if __name__ == "__main__":
    main()
