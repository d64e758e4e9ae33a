"""Two rounds of pruning with rewinding in every trainer of docs/how-to/own-loop.md, run from the page itself."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path

import pytest
import torch
from holding import toy
from own_loops import STEPS, batches, code, is_cut, loss, run, two_rounds
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import prunekit as pk


def test_the_loop_at_the_top() -> None:
    (plain,), (top,) = code("Plain"), code("Your own loop")
    done = run(top, train=run(plain)["train"], model=toy(), STEPS=STEPS)
    assert done["masks"].kept == round(0.1 * (162 + 384))
    assert is_cut(done["model"], done["masks"])


def test_plain() -> None:
    (text,) = code("Plain")
    masks = two_rounds(toy(), run(text)["train"])
    assert masks.per_tensor().keys() == {"0.weight", "4.weight"}


def test_gradient_scaling() -> None:
    (text,) = code("Gradient scaling and clipping")
    two_rounds(toy(), run(text, device="cpu")["train"])


@pytest.mark.parametrize("library", ["torch", "timm"])
def test_an_average_older_than_the_cut_is_no_ticket_until_masked(library: str) -> None:
    train_text, mask_text = code("Averages")
    model = toy()
    if library == "torch":
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    else:
        ema = pytest.importorskip("timm.utils").ModelEmaV3(model, decay=0.9)
        train_text = train_text.replace("ema.update_parameters(model)", "ema.update(model)")
    train = run(train_text, ema=ema)["train"]
    masks = two_rounds(model, train)
    cut = {name: size - kept for name, (kept, size) in masks.per_tensor().items()}
    assert masks.revived(ema) == cut  # every cut weight has left a trace in it
    before = pk.snapshot(ema)
    run(mask_text, masks=masks, ema=ema)
    assert is_cut(ema, masks)
    after = pk.snapshot(ema)
    assert all(torch.equal(after[name][mask], before[name][mask]) for name, mask in masks.items())
    assert loss(ema) < 0.6 * loss(toy())
    with pk.hold(model, masks):
        train(model, 0, 3)
    assert is_cut(ema, masks)  # zeros averaged with zeros


@pytest.mark.slow
def test_lightning() -> None:
    lightning = pytest.importorskip("lightning")
    shown = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    (text,) = code("Lightning")
    page = run(text, lightning=lightning, quiet=dict.fromkeys(shown, False))
    module = page["Classifier"](toy())
    module.forward = module.network.forward
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on loader workers and the like
        masks = two_rounds(module, page["train"])
    assert masks.per_tensor().keys() == {"network.0.weight", "network.4.weight"}


@pytest.mark.parametrize("optimizer", ["lookahead_adamw", "adamw", "lamb"])
def test_timm(optimizer: str) -> None:
    timm = pytest.importorskip("timm")
    for part in ("data", "loss", "optim", "scheduler", "utils"):
        importlib.import_module(f"timm.{part}")
    (text,) = code("A timm recipe")
    page = run(text.replace("lookahead_adamw", optimizer).replace("ema =", "global ema; ema ="), timm=timm)
    masks = two_rounds(toy(), page["train"])
    assert is_cut(page["ema"], masks)  # it began as a copy of the cut model


def test_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (plain,), (text,) = code("Plain"), code("Channels instead of weights")
    model = toy()
    names, start = list(model.state_dict()), pk.snapshot(model)
    done = run(text, train=run(plain)["train"], model=model, example=torch.zeros(1, 3, 6, 6))
    shape: pk.Shape = done["shape"]
    assert (shape.kept, shape.prunable) == (27 + 1 + 2 + 64 + 4, 162 + 6 + 12 + 384 + 4)  # one channel of six
    assert list(model.state_dict()) == names and model[0].out_channels == model[1].num_features == 1
    assert model[4].in_features == 16 * model[0].out_channels
    before = toy()
    shape.apply_(before)
    assert loss(model) < 0.8 * loss(before)
    assert pk.load(tmp_path / "small.safetensors").about.parameters_before == 568
    pk.restore(model, start, shape)
    assert all(torch.equal(tensor, before.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_the_pictures_can_be_told_apart() -> None:
    x, labels = next(batches(0))
    assert x.shape == (32, 3, 6, 6) and set(labels.tolist()) == {0, 1, 2, 3}
