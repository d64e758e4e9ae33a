"""Time and extra memory of scorers and allocations beside global magnitude, on 33 million weights.

    python tests/benchmarks/choice_speed.py [--rounds 5] [--threads 2]

In one process, in turn: medians over rounds. N:M's time, of the network and of linear layers, is also given as bytes a
second (a weight: 4 of score and 1 of mask read, 1 written), beside what a plain copy of the scores reaches. Scorers
with data cut 33 million weights of linear layers, each in a process of its own; extra memory is the peak resident set
above what was resident before.
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

import torch
from torch import nn

import prunekit as pk

DATA = ("snip", "grasp", "synflow", "taylor", "fisher", "movement", "wanda")


def seconds(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def speed(rounds: int) -> None:
    from prune_speed import network  # beside this file

    model = network()
    masks = pk.Masks.dense(model)
    wide = pk.Masks({name: mask for name, mask in masks.items() if mask.shape[1] % 4 == 0})
    scores = {name: each.detach().abs() for name, each in model.named_parameters() if name in wide}
    copies = {name: torch.empty_like(score) for name, score in scores.items()}
    linear = {f"{place}.weight": torch.rand(2048, 2048) for place in range(8)}
    dense = pk.Masks({name: torch.ones(2048, 2048, dtype=torch.bool) for name in linear})
    works: dict[str, Callable[[], object]] = {
        "everywhere": lambda: pk.prune(model, masks, 0.1),
        "per_layer": lambda: pk.prune(model, masks, 0.1, allocation=pk.per_layer()),
        "erk": lambda: pk.prune(model, masks, 0.1, allocation=pk.erk()),
        "lamp": lambda: pk.prune(model, masks, 0.1, scorer=pk.lamp()),
        "per_output": lambda: pk.prune(model, masks, 0.1, allocation=pk.per_output()),
        "n_of_m": lambda: pk.n_of_m()(scores, wide, pk.Density(0.5)),
        "n_of_m linear": lambda: pk.n_of_m()(linear, dense, pk.Density(0.5)),
        "copy": lambda: [copies[name].copy_(score) for name, score in scores.items()],
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            times[name].append(seconds(work))
    median = {name: statistics.median(each[1:]) for name, each in times.items()}
    print(f"{masks.prunable:,} weights in {len(masks)} tensors, {torch.get_num_threads()} threads")
    for name, each in median.items():
        line = f"{name:>13} {each * 1000:8.0f} ms  {each / median['everywhere']:6.2f} x everywhere"
        weights = dense.prunable if name == "n_of_m linear" else wide.prunable
        line += f"  {6 * weights / each / 1e9:6.1f} GB/s" if name.startswith("n_of_m") else ""
        line += f"  {8 * weights / each / 1e9:6.1f} GB/s" if name == "copy" else ""
        print(line)


def resident_mib(what: str) -> float:
    """``VmRSS`` now, or ``VmHWM`` at its highest, of this process (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def memory_of(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(8)))  # 33.6 M weights, few activations
    data = pk.Calibration(
        [torch.randn(4, 2048) for _ in range(2)],
        lambda net, x: net(x).square().mean(),
        {key: torch.zeros(()).expand_as(each) for key, each in model.named_parameters()},
    )
    small = nn.Linear(8, 8)
    tiny = pk.Calibration([torch.randn(4, 8)], lambda net, x: net(x).square().mean(), {"weight": torch.zeros(8, 8)})
    scorer = getattr(pk, name)() if name != "synflow" else pk.synflow(times=1)
    pk.prune(small, pk.Masks.dense(small), 0.5, scorer=scorer, data=tiny)  # what torch loads by itself
    masks = pk.Masks.dense(model)
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is now
    before = resident_mib("VmRSS")
    work_s = seconds(lambda: pk.prune(model, masks, 0.1, scorer=scorer, data=data))
    weights_mib = sum(each.numel() * 4 for each in model.parameters()) / 2**20
    print(json.dumps({"peak_mib": resident_mib("VmHWM") - before, "weights_mib": weights_mib, "s": work_s}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        memory_of(options.memory_of)
        return
    speed(options.rounds)
    for name in DATA:
        command = [sys.executable, __file__, "--memory-of", name, "--threads", str(options.threads)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        copies = found["peak_mib"] / found["weights_mib"]
        print(f"{name:>12} {found['s']:8.2f} s   peak {found['peak_mib']:6.0f} MiB = {copies:.2f} times the weights")


if __name__ == "__main__":
    main()
