"""Rounds of pruning in a training of one's own, with what must hold in each; the trainings are those of the docs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import prunekit as pk
from prunekit.select import canonical, parameters

REWIND_STEP, STEPS, BATCH = 5, 45, 32
PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "own-loop.md"
Train = Callable[[nn.Module, int, int], None]


def code(section: str) -> list[str]:
    """Return the Python of one section of the page on own loops."""
    (text,) = re.findall(rf"^#+ {re.escape(section)}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def run(text: str, **names: Any) -> dict[str, Any]:
    """Run code from the page, with the names that it takes for granted."""
    names = {"torch": torch, "nn": nn, "pk": pk, "batches": batches, "STEPS": STEPS, "REWIND_STEP": REWIND_STEP} | names
    exec(compile(text, str(PAGE), "exec"), names)
    return names


def labelled(step: int) -> tuple[Tensor, Tensor]:
    """Return one batch of small pictures in noise: which of their quarters is bright is one of 4 classes."""
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(4, (BATCH,), generator=generator)
    images_bchw = 0.5 * torch.randn(BATCH, 3, 6, 6, generator=generator)
    for image_chw, label in zip(images_bchw, labels.tolist(), strict=True):
        top, left = 3 * (label // 2), 3 * (label % 2)
        image_chw[:, top : top + 3, left : left + 3] += 1
    return images_bchw, labels


def batches(step: int) -> Iterator[tuple[Tensor, Tensor]]:
    return map(labelled, itertools.count(step))


@torch.no_grad()
def loss(model: nn.Module) -> float:
    """Return the loss on pictures that training never sees."""
    x, labels = labelled(10**6)
    like, mode = next(model.parameters()), model.training
    logits = model.eval()(x.to(like))
    model.train(mode)
    return nn.functional.cross_entropy(logits.float(), labels.to(like.device)).item()


def two_rounds(model: nn.Module, train: Train) -> pk.Masks:
    """Prune to half and to a quarter, rewinding to step 5; check everything that must hold in every trainer."""
    keys, objects = list(model.state_dict()), [id(parameter) for parameter in model.parameters()]
    train(model, 0, REWIND_STEP)
    start, masks = pk.snapshot(model), pk.Masks.dense(model)
    for kept in (0.5, 0.25):
        _train_held(model, masks, train)
        before, masks = masks, pk.prune(model, masks, kept)
        assert masks.kept == round(kept * masks.prunable)
        assert not any((mask & ~before[name]).any() for name, mask in masks.items())
        pk.restore(model, start, masks)
        for name, tensor in ((canonical(key), tensor) for key, tensor in model.state_dict().items()):
            wanted = start[name].where(masks[name].to(tensor.device), 0) if name in masks else start[name]
            assert torch.equal(tensor, wanted), name
    _train_held(model, masks, train)
    assert list(model.state_dict()) == keys
    assert [id(parameter) for parameter in model.parameters()] == objects
    return masks


def _train_held(model: nn.Module, masks: pk.Masks, train: Train) -> None:
    before, after_steps = loss(model), []
    with pk.hold(model, masks):
        handle = register_optimizer_step_post_hook(lambda *_: after_steps.append(is_cut(model, masks)))
        train(model, REWIND_STEP, STEPS)
        handle.remove()
    assert len(after_steps) >= STEPS - REWIND_STEP and all(after_steps)
    assert is_cut(model, masks)
    assert loss(model) < 0.8 * before  # it still learns


def is_cut(model: nn.Module, masks: pk.Masks) -> bool:
    """Whether exactly the kept weights are not zero."""
    named = parameters(model)
    return all(torch.equal(named[name].detach().cpu() != 0, mask) for name, mask in masks.items())
