"""One process of the accelerate training in docs/how-to/own-loop.md; its result goes into the folder that is named."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import accelerate
import torch
from own_loops import code, labelled, run, two_rounds
from torch import Tensor, nn

import prunekit as pk
from prunekit.files import write_tensors


def network() -> nn.Module:
    """Return one without batch norm, whose statistics would depend on how a batch is shared out."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4))
    return nn.Sequential(*layers).double()


def main(folder: Path) -> None:
    state = accelerate.PartialState(cpu=True)

    def mine(step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's share of each batch."""
        for images_bchw, labels in map(labelled, itertools.count(step)):
            share = slice(state.process_index, None, state.num_processes)
            yield images_bchw[share].double(), labels[share]

    (text,) = code("accelerate, several processes")
    page = run(text, accelerate=accelerate, model=network(), batches=mine)
    masks = two_rounds(page["model"], page["train"])
    write_tensors(folder / f"{state.process_index}.safetensors", {**pk.snapshot(page["model"]), **masks.state_dict()})
    page["accelerator"].end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
