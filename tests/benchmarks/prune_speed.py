"""Time and extra memory of one global magnitude cut, beside torch's own pruning and a plain percentile.

    python tests/benchmarks/prune_speed.py [--threads 2] [--rounds 5]

Each method runs in a process of its own, in turn, on the same weights: 401 tensors, 33 million float32 values, the
shape of an image-restoration transformer. Extra memory is the peak resident set of the first cut above what was
resident before it; time is the median over rounds of the best of three cuts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

RATE = 0.2
BLOCKS = {48: 4, 96: 20, 160: 1, 192: 12, 320: 1, 384: 8, 704: 1}  # width -> transformer blocks of that width


def network() -> nn.Module:
    """401 weight tensors in the proportions of a four-level restoration transformer."""
    torch.manual_seed(0)
    model = nn.ModuleList()
    for width, count in BLOCKS.items():
        hidden = int(2.66 * width)
        for _ in range(count):
            model.extend(
                [
                    nn.LayerNorm(width, bias=False),
                    nn.Conv2d(width, 3 * width, 1, bias=False),
                    nn.Conv2d(3 * width, 3 * width, 3, groups=3 * width, bias=False),
                    nn.Conv2d(width, width, 1, bias=False),
                    nn.LayerNorm(width, bias=False),
                    nn.Conv2d(width, 2 * hidden, 1, bias=False),
                    nn.Conv2d(2 * hidden, 2 * hidden, 3, groups=2 * hidden, bias=False),
                    nn.Conv2d(hidden, width, 1, bias=False),
                ]
            )
    model.extend([nn.Conv2d(128, 128, 3, bias=False) for _ in range(25)])
    return model


def prunekit_cut(model: nn.Module, density: float) -> Callable[[], int]:
    """Cut with prunekit, from masks of the given density."""
    from prunekit import Masks, Rate, prune

    masks = Masks.dense(model, include=["*"])
    if density < 1:
        masks = prune(model, masks, density)
        masks.apply_(model)
    return lambda: prune(model, masks, Rate(RATE)).kept


def torch_cut(model: nn.Module, density: float) -> Callable[[], int]:
    """Cut with torch.nn.utils.prune.global_unstructured, dense only; its buffers are then removed again."""
    from torch.nn.utils import prune

    places = [(module, "weight") for module in model]

    def cut() -> int:
        prune.global_unstructured(places, pruning_method=prune.L1Unstructured, amount=RATE)
        return 0

    return cut


def percentile_cut(model: nn.Module, density: float) -> Callable[[], int]:
    """Cut below the percentile of the non-zero magnitudes, as published lottery-ticket code does."""

    def cut() -> int:
        alive = np.concatenate([(w := p.detach().numpy())[w != 0].ravel() for p in model.parameters()])
        threshold = np.percentile(np.abs(alive), 100 * RATE)
        masks = [np.where(np.abs(p.detach().numpy()) < threshold, 0, 1).astype(np.float32) for p in model.parameters()]
        return len(masks)

    return cut


METHODS = {"prunekit": prunekit_cut, "percentile": percentile_cut, "torch": torch_cut}


def memory(field: str) -> float:
    """A field of /proc/self/status, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1e3


def measure(method: str, threads: int, density: float) -> None:
    """Run one method in this process and print its figures as JSON."""
    torch.set_num_threads(threads)
    model = network()
    cut = METHODS[method](model, density)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak restarts here
    times = []
    for attempt in range(3):
        start = time.perf_counter()
        cut()
        times.append(time.perf_counter() - start)
        if attempt == 0:
            peak = memory("VmHWM")
        if method == "torch":
            for module in model:
                torch.nn.utils.prune.remove(module, "weight")
    print(json.dumps({"seconds": min(times), "first": times[0], "megabytes": peak - before}))


def main() -> None:
    """Measure every method in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--density", type=float, default=1.0, help="of the masks before the cut")
    options = parser.parse_args()
    if options.method:
        return measure(options.method, options.threads, options.density)
    weights = [parameter.numel() for parameter in network().parameters()]
    print(
        f"{len(weights)} tensors, {sum(weights):,} float32 weights, {options.threads} threads, {options.rounds} rounds"
    )
    methods = [name for name in METHODS if options.density == 1 or name != "torch"]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    for _ in range(options.rounds):
        for name in methods:
            command = [sys.executable, __file__, "--method", name, "--threads", str(options.threads)]
            output = subprocess.check_output([*command, "--density", str(options.density)], text=True)
            found[name].append(json.loads(output))
    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()
    }
    ours = medians["prunekit"]
    print(f"{'method':<12}{'s':>8}{'first, s':>10}{'MB extra':>10}{'times ours':>12}{'memory':>8}")
    for name, row in medians.items():
        print(
            f"{name:<12}{row['seconds']:>8.2f}{row['first']:>10.2f}{row['megabytes']:>10.0f}"
            f"{row['seconds'] / ours['seconds']:>11.1f}x{row['megabytes'] / ours['megabytes']:>7.1f}x"
        )


if __name__ == "__main__":
    main()
