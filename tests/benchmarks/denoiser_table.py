"""What one cut costs a real pretrained denoiser: every scorer with every allocation, at five densities, in PSNR.

    python tests/benchmarks/denoiser_table.py WEIGHTS TRAIN TEST [--scorer NAME] [--allocation NAME]

WEIGHTS is a file that spandrel knows, e.g. a grey DnCNN; TRAIN and TEST are folders of clean images. Noise is Gaussian
and not clipped, a function of each file's name; PSNR is of the output as it is, the mean over the centres of the test
images. Scorers that want data see 16 noisy centres of 128 pixels of TRAIN. Nothing is fine-tuned.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

import prunekit as pk
from prunekit.allocate import Allocation
from prunekit.folder import folder_data
from prunekit.network import bind_network
from prunekit.score import Scorer

DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02)
SCORERS: dict[str, Callable[[], Scorer]] = {
    "magnitude": pk.magnitude,
    "lamp": pk.lamp,
    "snip": pk.snip,
    "taylor": pk.taylor,
    "fisher": pk.fisher,
    "grasp": pk.grasp,
    "synflow": pk.synflow,
    "wanda": pk.wanda,
    "random": partial(pk.random, seed=0),
}
ALLOCATIONS: dict[str, Callable[[], Allocation]] = {
    "everywhere": partial(pk.everywhere, min_keep=1),
    "erk": partial(pk.erk, min_keep=1),
    "per_layer": pk.per_layer,
    "per_output": pk.per_output,
}


def psnr_db(model: nn.Module, data: pk.Calibration) -> float:
    """Return the mean PSNR in dB over the images."""
    with torch.no_grad():
        errors = [float(loss) for loss in data.losses(model.eval())]
    return -sum(10 * math.log10(error) for error in errors) / len(errors)


def main() -> None:
    """Print the table as Markdown, a row for each pair as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("weights", "train", "test"):
        parser.add_argument(name, metavar=name.upper())
    parser.add_argument("--scorer", action="append", choices=SCORERS, help="only this one; repeatable")
    parser.add_argument("--allocation", action="append", choices=ALLOCATIONS, help="only this one; repeatable")
    parser.add_argument("--sigma", type=float, default=25)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--crop", type=int, default=192)
    options = parser.parse_args()
    model = bind_network(f"spandrel:{options.weights}")().eval()
    call = pk.image_call(model)
    data = folder_data(options.train, call, noise=options.sigma, images=16, crop=128)
    test = folder_data(options.test, call, noise=options.sigma, images=options.images, crop=options.crop)
    start, dense = pk.snapshot(model), pk.Masks.dense(model)
    print(f"{dense.prunable:,} prunable weights, dense {psnr_db(model, test):.2f} dB; kept:", *DENSITIES, flush=True)
    for scorer in options.scorer or SCORERS:
        for allocation in options.allocation or ALLOCATIONS:
            if scorer == "lamp" and allocation != "everywhere":
                continue  # within a tensor it ranks as magnitude does
            began_s, cells = time.perf_counter(), []
            for density in DENSITIES:
                score, allocate = SCORERS[scorer](), ALLOCATIONS[allocation]()
                masks = pk.prune(model, dense, density, scorer=score, allocation=allocate, data=data)
                masks.apply_(model)
                cells.append(f"{psnr_db(model, test):.2f}")
                pk.restore(model, start)
            seconds = time.perf_counter() - began_s
            print(f"| {scorer} | {allocation} | {' | '.join(cells)} | {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
