"""Sizes of PromptIR's tickets on disk, and how long they take to write and to read, beside dense files.

python tests/benchmarks/ticket_files.py [DENSITY ...]

Densities are of all parameters; magnitudes decide, over convolutions, linear layers and prompts (as in the recipe
`mir_l`). Reading is timed in turn with the dense files, all of them in the system's cache; "to model" builds the
network too.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import prunekit as pk
from prunekit.environment import cpu_name
from prunekit.network import bind_network
from prunekit.select import parameters

ROUNDS = 5


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def row(density: float, folder: Path) -> str:
    torch.manual_seed(0)
    model = bind_network("promptir")()
    start = pk.Masks.dense(model, include=["*weight", "*prompt_param"])
    sizes = {name: parameter.numel() for name, parameter in parameters(model).items()}
    masks = pk.prune(model, start, pk.solve_total(density, sizes, list(start)))
    masks.apply_(model)
    files = {kind: folder / f"{kind}-{density}.safetensors" for kind in ("sparse", "float16", "dense")}
    pickled = folder / f"{density}.pt"
    example = torch.zeros(1, 3, 128, 128)
    wrote = seconds(lambda: pk.save(model, masks, files["sparse"], network="promptir", example=example))
    pk.save(model, masks, files["float16"], dtype=torch.float16)
    save_file(model.state_dict(), files["dense"])
    torch.save(model.state_dict(), pickled)
    ticket = pk.load(files["sparse"])
    assert all(torch.equal(tensor, ticket.tensors[name]) for name, tensor in pk.snapshot(model).items())
    ways: dict[str, Callable[[], object]] = {
        "sparse": lambda: pk.load(files["sparse"]),
        "to model": lambda: pk.load(files["sparse"]).model(),
        "safetensors": lambda: {name: tensor.clone() for name, tensor in load_file(files["dense"]).items()},
        "torch.load": lambda: torch.load(pickled, weights_only=True),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, call in ways.items():
            times[name].append(seconds(call))
    megabytes = " | ".join(f"{files[kind].stat().st_size / 1e6:.2f}" for kind in files)
    medians = " | ".join(f"{statistics.median(spent):.2f}" for spent in times.values())
    return f"| {density:.0%} | {masks.density:.2%} | {megabytes} | {wrote:.2f} | {medians} |"


def main() -> None:
    densities = [float(text) for text in sys.argv[1:]] or [0.5, 0.2, 0.1, 0.05]
    print(f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}; MB and seconds")
    print("| of all | of prunable | sparse | float16 | dense | write | read | to model | safetensors | torch.load |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for density in densities:
            print(row(density, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
