"""`hold` under wrappers and compilers; foreign trainers are in test_own_loop.py."""

from __future__ import annotations

import shutil
import warnings

import pytest
import torch
from holding import step, survivors_only, ticket, toy
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from prunekit.masks import hold


def test_a_wrapped_model_is_held_like_the_bare_one() -> None:
    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Tensor) -> Tensor:
            return self.module(x)

    model = toy()
    masks, wrapped = ticket(model), Wrapper(model)
    with hold(wrapped, masks):
        step(wrapped, SGD(wrapped.parameters(), lr=0.1))
        assert survivors_only(model, masks)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a compiler")
@pytest.mark.parametrize("compiled", ["model", "step"])
def test_compiled_models_and_steps(compiled: str) -> None:
    bare = toy()
    optimizer = AdamW(bare.parameters(), lr=torch.tensor(0.01), weight_decay=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own, which change from version to version
        torch.compiler.reset()
        model = torch.compile(bare) if compiled == "model" else bare
        if compiled == "step":
            optimizer.step = torch.compile(optimizer.step, fullgraph=False)
        step(model, optimizer)
        masks = ticket(bare)
        with hold(model, masks):
            for _ in range(3):
                step(model, optimizer)
                assert survivors_only(bare, masks)
        step(model, optimizer)
        assert not survivors_only(bare, masks)
