"""Time the full PromptIR against its plain transcription: one training step, and inference.

    python tests/benchmarks/promptir_speed.py [--rounds 7] [--keep-heap | --as-run] [--threads 2]

The two take turns, so that a busy machine slows both; the ratio is the median over the rounds. A training step is
forward, backward and AdamW: torch's default for the transcription, the fused one for ours, as the task trains. Each
network trains in a process of its own, as networks do. ``--keep-heap`` asks glibc to keep freed memory, which alone
makes eager PyTorch faster: it is given to both or to neither. ``--as-run`` times training steps only, the
transcription's heap as it comes, ours kept, as ``prunekit run`` keeps it.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "plugins" / "mir_l"))

from promptir_plain import PlainPromptIR

from prunekit_mir_l.promptir import PromptIR

WARM_UP = 3
"""Steps until no more memory is asked of the system."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_heap() -> None:
    """Stop glibc from mapping and unmapping every large tensor."""
    libc = ctypes.CDLL("libc.so.6")
    if not (libc.mallopt(M_MMAP_THRESHOLD, 1 << 30) and libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)):
        raise SystemExit("this C library does not let the heap be kept")


def training(model: nn.Module) -> Callable[[], Tensor]:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-4, fused=isinstance(model, PromptIR))
    x_bchw, target_bchw = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = F.l1_loss(model(x_bchw), target_bchw)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def gradients_differ(plain: nn.Module, ours: nn.Module) -> float:
    x_bchw, target_bchw = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for model in (plain, ours):
        F.l1_loss(model.train()(x_bchw), target_bchw).backward()
    named = dict(ours.named_parameters())
    return max(
        ((p.grad - named[name].grad).abs().max() / p.grad.abs().max()).item()
        for name, p in plain.named_parameters()
        if p.grad is not None
    )


def inference(model: nn.Module) -> Callable[[], Tensor]:
    model.eval()
    x_bchw = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))

    def run() -> Tensor:
        with torch.no_grad():
            return model(x_bchw)

    return run


def clock(function: Callable[[], Tensor]) -> tuple[float, Tensor]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def serve_steps(ask: Connection, ours: bool, keep: bool, threads: int) -> None:
    """Train one network in this process, a step whenever asked, and answer with its seconds and its loss."""
    torch.set_num_threads(threads)
    if keep:
        keep_heap()
    torch.manual_seed(0)
    plain, model = PlainPromptIR(), PromptIR()
    model.load_state_dict(plain.state_dict())
    step = training(model if ours else plain)
    while ask.recv():
        seconds, loss = clock(step)
        ask.send((seconds, loss.item()))


def compare_steps(rounds: int, threads: int, *, keep: tuple[bool, bool]) -> None:
    """Time a step of the transcription and one of ours in turns; ``keep`` says whose heap is kept."""
    context = multiprocessing.get_context("spawn")
    ends = []
    for ours in (False, True):
        end, other = context.Pipe()
        context.Process(target=serve_steps, args=(other, ours, keep[ours], threads), daemon=True).start()
        ends.append(end)

    def step(end: Connection) -> tuple[float, float]:
        end.send(True)
        seconds, loss = end.recv()
        return seconds, loss

    plain, ours = ends
    difference = abs(step(plain)[1] - step(ours)[1])
    for _ in range(WARM_UP - 1):
        step(plain), step(ours)
    times = [(step(plain)[0], step(ours)[0]) for _ in range(rounds)]
    for end in ends:
        end.send(False)
    print_ratio("training step, 2 x 64 x 64", times, difference)


def compare(name: str, plain: Callable[[], Tensor], ours: Callable[[], Tensor], rounds: int) -> float:
    difference = (plain() - ours()).abs().max().item()  # also the warm-up
    times = [(clock(plain)[0], clock(ours)[0]) for _ in range(rounds)]
    return print_ratio(name, times, difference)


def print_ratio(name: str, times: list[tuple[float, float]], difference: float) -> float:
    ratio = statistics.median(p / o for p, o in times)
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    print(
        f"{name:<32} plain {medians[0]:6.3f} s   ours {medians[1]:6.3f} s   ratio {ratio:5.2f}   "
        f"largest difference {difference:.1e}",
        flush=True,
    )
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    heap = parser.add_mutually_exclusive_group()
    heap.add_argument("--keep-heap", action="store_true")
    heap.add_argument("--as-run", action="store_true")
    options = parser.parse_args()
    if options.as_run:
        print(f"{options.threads} threads, the heap kept for ours, {options.rounds} rounds")
        compare_steps(options.rounds, options.threads, keep=(False, True))
        return
    torch.set_num_threads(options.threads)
    if options.keep_heap:
        keep_heap()
    torch.manual_seed(0)
    plain, ours = PlainPromptIR(), PromptIR()
    ours.load_state_dict(plain.state_dict())
    print(f"{options.threads} threads, heap {'kept' if options.keep_heap else 'as it comes'}, {options.rounds} rounds")
    compare("inference, 1 x 128 x 128", inference(plain), inference(ours), options.rounds)
    print(f"largest difference of a gradient, as a share of its tensor's largest: {gradients_differ(plain, ours):.1e}")
    compare_steps(options.rounds, options.threads, keep=(options.keep_heap, options.keep_heap))


if __name__ == "__main__":
    main()
