"""Training crops with noise a second: from files decoded each time, and from the cache, cold and warm, in turn.

python tests/benchmarks/loader_speed.py [--data FOLDER] [--images 200] [--workers 0 2] [--cache-mib 256]

"Plain" is the usual data set of a torch DataLoader: Pillow decodes the file, a random crop of 64 pixels is cut, turned
and given noise. "Cold" is the first epoch of the task's loader, "warm" each one after it. Without --data, smooth random
images of 481x321 are written as JPEG files of quality 90. Memory is what all processes hold, shared pages counted once
(Pss), above what they held before the cache was read.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from prunekit.data import batches
from prunekit.environment import cpu_name
from prunekit_mir_l.cache import image_cache
from prunekit_mir_l.dataset import Crops, as_tensor
from prunekit_mir_l.degrade import noise, random_window, turn
from prunekit_mir_l.items import SIGMAS, Item

ROUNDS, PATCH, BATCH = 5, 64, 8


@dataclass(frozen=True)
class Plain(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """What one would write: every visit decodes the file."""

    items: Sequence[Item]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        with Image.open(self.items[index].target) as image:
            pixels = np.asarray(image.convert("RGB"))
        clean = random_window(pixels.shape[:2], PATCH, rng).cut(pixels)
        which = int(rng.integers(8))
        sigma = int(self.items[index].task.removeprefix("denoise_"))
        return as_tensor(turn(noise(clean, sigma, rng), which)), as_tensor(turn(clean, which))


def paint(folder: Path, count: int) -> list[Path]:
    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = rng.integers(0, 256, (24, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((481, 321), Image.Resampling.BICUBIC)).astype(float)
        grain = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(grain).save(folder / f"{index:04d}.jpg", quality=90)
    return sorted(folder.iterdir())


def rate(stream: Iterator[Any], images: int) -> float:
    """Return images a second of the next batches; the first one, before which workers start, is not timed."""
    next(stream)
    began = time.perf_counter()
    count = sum(len(target) for _, target in itertools.islice(stream, images // BATCH))
    return count / (time.perf_counter() - began)


def pss_mib(workers: Sequence[int]) -> float:
    def one(pid: int) -> float:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024

    return sum(map(one, (os.getpid(), *workers)))


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text("utf-8").split()]


def measure(items: Sequence[Item], files: int, workers: int, limit: int) -> str:
    rates: dict[str, list[float]] = {"plain": [], "cold": [], "warm": []}
    grown = []
    for turn_ in range(ROUNDS):
        plain = DataLoader(Plain(items), BATCH, shuffle=True, num_workers=workers, drop_last=True)
        rates["plain"].append(rate(iter(plain), len(items) - BATCH))
        crops = Crops(items[:files], PATCH, turn_, "dihedral", image_cache(items, limit, copies=max(1, workers)))
        stream = batches(crops, size=BATCH, seed=turn_, clock=0, workers=workers)
        next(stream)
        before = pss_mib(children())
        rates["cold"].append(rate(stream, files - 2 * BATCH))
        for _ in range(3):
            rate(stream, files)
        grown.append(pss_mib(children()) - before)
        rates["warm"].append(rate(stream, 2 * len(items)))
        del stream
    middle = {name: statistics.median(found) for name, found in rates.items()}
    cells = [f"{middle[name]:10.0f}" for name in rates]
    ratios = [f"{middle[name] / middle['plain']:6.2f}x" for name in ("cold", "warm")]
    return f"{workers:7}{''.join(cells)}   {' '.join(ratios)}   {statistics.median(grown):8.0f} of {limit / 2**20:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--cache-mib", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = sorted(options.data.glob("*.jpg")) if options.data else paint(Path(folder), options.images)
        paths = paths[: options.images]
        items = [Item(f"denoise_{sigma}", "files", path) for sigma in SIGMAS for path in paths]
        decoded = sum(np.asarray(Image.open(path)).nbytes for path in paths) / 2**20
        print(f"{cpu_name()}; {len(paths)} files, {decoded:.0f} MiB decoded; images/s, medians of {ROUNDS} rounds")
        print("workers     plain      cold      warm     cold    warm   MiB of cache")
        for workers in options.workers:
            print(measure(items, len(paths), workers, options.cache_mib * 2**20), flush=True)


if __name__ == "__main__":
    main()
