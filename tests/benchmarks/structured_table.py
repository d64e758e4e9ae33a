"""Structured cuts of seven networks: parameters, multiply-adds and latency before and after, and what the cut cost.

    python tests/benchmarks/structured_table.py [--network NAME] [--macs 0.5] [--multiple 16] [--torch-pruning]

Prints Markdown. Every cut is made in a process of its own, which measures seconds and the peak of resident memory above
what was resident before; latency is the median of ``--runs`` passes of each network, which take turns. Weights are
random: how good a cut network is, this does not say. ``--torch-pruning`` prints instead what torch-pruning makes of the
same networks by itself, in at most 120 s and 4 GiB: it is told the last layer, which has to stay, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "plugins" / "mir_l")]

SECONDS, MIB = 120.0, 4096.0
NETWORKS: dict[str, tuple[Any, tuple[int, ...], tuple[float, ...]]] = {
    "promptir": ("promptir", (1, 3, 64, 64), (0.7, 0.5)),
    "nafnet": (
        {
            "name": "spandrel:NAFNet",
            "width": 32,
            "enc_blk_nums": [2, 2, 4, 8],
            "middle_blk_num": 12,
            "dec_blk_nums": [2, 2, 2, 2],
        },
        (1, 3, 128, 128),
        (0.5,),
    ),
    "swinir": (
        {
            "name": "spandrel:SwinIR",
            "embed_dim": 60,
            "depths": [6, 6, 6, 6],
            "num_heads": [6, 6, 6, 6],
            "window_size": 8,
            "mlp_ratio": 2,
        },
        (1, 3, 64, 64),
        (0.5,),
    ),
    "dncnn": ({"name": "spandrel:DnCNN", "nc": 64, "nb": 17}, (1, 1, 128, 128), (0.5,)),
    "resnet18": ("timm:resnet18", (1, 3, 224, 224), (0.5,)),
    "convnext_tiny": ("timm:convnext_tiny", (1, 3, 224, 224), (0.5,)),
    "vit_tiny": ("timm:vit_tiny_patch16_224", (1, 3, 224, 224), (0.5,)),
}
"""Name -> what PruneKit calls it, the shape of its input, and shares of its multiply-adds."""


def built(name: str) -> tuple[Any, Any]:
    """Return the network in eval mode, with random weights, and an input."""
    import torch

    from prunekit.network import bind_network

    torch.manual_seed(0)
    network, shape, _ = NETWORKS[name]
    return bind_network(network)().eval(), torch.rand(shape)


def size_of(model: Any, x: Any) -> dict[str, float]:
    """Return parameters in millions and multiply-adds in billions."""
    from prunekit.measure import count_macs

    parameters = sum(each.numel() for each in model.parameters())
    return {"parameters": parameters / 1e6, "macs": count_macs(model, x).dense / 1e9}


def cut_by_us(name: str, share: float, runs: int, multiple: int) -> dict[str, Any]:
    """Cut a network to a share of its multiply-adds and measure both."""
    import torch

    from prunekit.amount import MacDensity
    from prunekit.budget import resident_mib
    from prunekit.calibration import Calibration
    from prunekit.measure import latencies_ms, macs_per_tensor
    from prunekit.score import magnitude
    from prunekit.structured.pruner import Structured
    from prunekit.structured.trial import shrunk

    model, x = built(name)
    pruner = Structured(magnitude(), multiple=multiple)
    amount = MacDensity(share, {owner: each.dense for owner, each in macs_per_tensor(model, x).items()})
    before_mib = resident_mib() or 0
    forget_peak()
    began_s = time.perf_counter()
    shape = pruner.cut(model, pruner.start(model), amount, Calibration([x]))
    took_s, grown_mib = time.perf_counter() - began_s, peak_mib() - before_mib
    small = shrunk(model, shape)
    with torch.no_grad():
        assert small(x).shape == model(x).shape
    dense_ms, small_ms = latencies_ms([model, small], x, runs=runs)
    sizes = {"dense": size_of(model, x) | {"ms": dense_ms}, "small": size_of(small, x) | {"ms": small_ms}}
    return {"seconds": took_s, "mib": grown_mib, **sizes}


def cut_by_torch_pruning(name: str) -> dict[str, Any]:
    """Let torch-pruning take 30 % of all channels by its defaults, which leaves about half the multiply-adds."""
    import torch
    import torch_pruning
    from torch import nn

    from prunekit.budget import budget

    model, x = built(name)
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    result: dict[str, Any] = {"dense": size_of(model, x), "step": "building the graph"}
    began_s = time.perf_counter()
    try:
        with warnings.catch_warnings(), budget(seconds=SECONDS, mib=MIB, what=f"{name}"):
            warnings.simplefilter("ignore")
            importance = torch_pruning.importance.GroupMagnitudeImportance()
            pruner = torch_pruning.pruner.BasePruner(
                model, x, importance, pruning_ratio=0.3, ignored_layers=[layers[-1]]
            )
            result["step"] = "cutting"
            pruner.step()
        result |= {"seconds": time.perf_counter() - began_s, "step": "running what was cut"}
        with torch.no_grad():
            shape = tuple(model(x).shape)
        result |= {"small": size_of(model, x), "output": shape}
    except Exception as error:  # whatever it raises is the result
        first = str(error).strip().partition("\n")[0].partition(": exclude")[0]
        result |= {"error": f"{type(error).__name__}: {first}", "seconds": time.perf_counter() - began_s}
    return result


def forget_peak() -> None:
    """Let Linux count the peak of resident memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """Return the peak of resident memory since then."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


def asked(arguments: Sequence[str], timeout_s: float | None) -> dict[str, Any]:
    """Return what a process of its own found."""
    command = [sys.executable, __file__, *arguments]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"killed after {timeout_s:.0f} s", "seconds": timeout_s}
    if done.returncode:
        return {"error": f"ended with {done.returncode}", "seconds": float("nan")}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def ours(name: str, share: float, row: Mapping[str, Any]) -> str:
    """Return a row of the table of our cuts."""
    shape = "x".join(map(str, NETWORKS[name][1]))
    if "error" in row:
        return f"| {name}, {shape} | {share:.0%} | {row['error']} |"
    dense, small = row["dense"], row["small"]
    cells = (
        f"{name}, {shape}",
        f"{share:.0%}",
        f"{dense['parameters']:.2f} → {small['parameters']:.2f}",
        f"{dense['macs']:.2f} → {small['macs']:.2f} ({small['macs'] / dense['macs']:.1%})",
        f"{dense['ms']:.1f} → {small['ms']:.1f} ({dense['ms'] / small['ms']:.2f}x)",
        f"{row['seconds']:.1f}",
        f"{row['mib']:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def theirs(name: str, row: Mapping[str, Any]) -> str:
    """Return a row of the table of torch-pruning's."""
    if "error" in row:
        return f"| {name} | {row.get('step', '')} | {row['error']} | {row['seconds']:.1f} |"
    dense, small = row["dense"], row["small"]
    became = f"{dense['parameters']:.2f} → {small['parameters']:.2f} M, {small['macs'] / dense['macs']:.1%} of the MACs"
    return f"| {name} | done | {became}, output {'x'.join(map(str, row['output']))} | {row['seconds']:.1f} |"


def main() -> None:
    """Print the table, a row as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", choices=NETWORKS, help="only this one; repeatable")
    parser.add_argument("--macs", action="append", type=float, help="share that is left; repeatable")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--multiple", type=int, default=1, help="of so many channels each group keeps a multiple")
    parser.add_argument("--torch-pruning", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.network or list(NETWORKS)
    if options.inside:
        import torch

        torch.set_num_threads(options.threads)
        found = cut_by_torch_pruning(names[0]) if options.torch_pruning else None
        print(json.dumps(found or cut_by_us(names[0], options.macs[0], options.runs, options.multiple)))
        return
    inside = ["--inside", "--threads", str(options.threads), "--runs", str(options.runs)]
    inside += ["--multiple", str(options.multiple)]
    if options.torch_pruning:
        print("| network | step | outcome | s |\n| --- | --- | --- | --- |", flush=True)
        for name in names:
            row = asked([*inside, "--network", name, "--torch-pruning"], 2 * SECONDS)
            print(theirs(name, row), flush=True)
        return
    print("| network, input | MACs asked | parameters, M | MACs, G | ms | s to cut | MiB to cut |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for name in names:
        for share in options.macs or NETWORKS[name][2]:
            row = asked([*inside, "--network", name, "--macs", str(share)], None)
            print(ours(name, share, row), flush=True)


if __name__ == "__main__":
    main()
