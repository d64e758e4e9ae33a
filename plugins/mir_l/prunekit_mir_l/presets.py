"""The sizes of PromptIR that have a name; every option of `PromptIR` can be given beside it."""

from __future__ import annotations

from functools import partial

from prunekit_mir_l.promptir import PromptIR

promptir = PromptIR
"""The published network: 35,592,263 parameters, its checkpoints load."""

promptir_small = partial(
    PromptIR,
    width=24,
    blocks=(2, 3, 3, 4),
    refinement=2,
    prompt_channels=(32, 64, 128),
    prompt_sizes=(32, 16, 8),
    unused=False,
)
"""Half the width and about half the depth: for one GPU, or a patient CPU."""

promptir_tiny = partial(
    PromptIR,
    width=12,
    blocks=(1, 1, 1, 1),
    refinement=1,
    heads=(1, 1, 2, 4),
    prompt_heads=2,
    prompt_channels=(8, 16, 24),
    prompt_sizes=(16, 8, 4),
    unused=False,
)
"""One narrow block per level: trains to a useful quality in a minute on two CPU cores."""
