"""`hold` under wrappers, compilers and foreign trainers."""

from __future__ import annotations

import shutil
import warnings

import pytest
import torch
from holding import step, survivors_only, ticket, toy
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

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


def test_accelerate() -> None:
    accelerate = pytest.importorskip("accelerate")
    model = toy()
    accelerator = accelerate.Accelerator(cpu=True)
    prepared, optimizer = accelerator.prepare(model, SGD(model.parameters(), lr=0.1, momentum=0.9))
    masks = ticket(model)
    with hold(prepared, masks):
        for _ in range(2):
            optimizer.zero_grad()
            accelerator.backward(prepared(torch.randn(4, 3, 6, 6)).square().mean())
            accelerator.clip_grad_norm_(prepared.parameters(), 1.0)
            optimizer.step()
            assert survivors_only(model, masks)


@pytest.mark.slow
def test_lightning() -> None:
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = toy()
            self.seen: list[bool] = []

        def training_step(self, batch: Tensor) -> Tensor:
            return self.net(batch).square().mean()

        def configure_optimizers(self) -> Optimizer:
            return AdamW(self.parameters(), lr=0.01, weight_decay=0.1)

        def on_train_batch_end(self, *_: object) -> None:
            self.seen.append(survivors_only(self, masks))

    module = Module()
    masks = ticket(module)
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=3, logger=False, enable_checkpointing=False, barebones=True
    )
    with warnings.catch_warnings(), hold(module, masks):
        warnings.simplefilter("ignore")  # advice on loader workers and the like
        trainer.fit(module, torch.utils.data.DataLoader(torch.randn(12, 3, 6, 6), batch_size=4))
    assert module.seen == [True, True, True]
