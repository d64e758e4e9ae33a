"""`hold` under the optimisers, trainers and wrappers that people use: cut weights are zero after every step."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from holding import step, survivors_only, ticket, toy
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks

from prunekit.errors import MaskError
from prunekit.masks import Masks, hold

OPTIMISERS: dict[str, Callable[[list[nn.Parameter]], Optimizer]] = {
    "sgd": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adamw_foreach": lambda p: AdamW(p, lr=0.01, weight_decay=0.1, foreach=True),
    "adamw_fused": lambda p: AdamW(p, lr=0.01, weight_decay=0.1, fused=True),
    "adam_loop": lambda p: Adam(p, lr=0.01, amsgrad=True, foreach=False),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_cut_weights_stay_zero_under_moments_older_than_the_cut(name: str) -> None:
    model = toy()
    optimizer = OPTIMISERS[name](list(model.parameters()))
    for _ in range(3):
        step(model, optimizer)
    masks, keys = ticket(model), list(model.state_dict())
    before = copy.deepcopy(model.state_dict())
    with hold(model, masks):
        assert survivors_only(model, masks)
        for _ in range(3):
            step(model, optimizer)
            assert survivors_only(model, masks)
            grads = {name: parameter.grad for name, parameter in model.named_parameters()}
            assert all(not (grads[name] * ~mask).any() for name, mask in masks.items())
            assert all(grads[name].any() for name in masks)
    assert list(model.state_dict()) == keys
    assert all(not torch.equal(model.state_dict()[key], before[key]) for key in keys)
    step(model, optimizer)
    assert not survivors_only(model, masks)  # the hold has ended


TIMM = ("adamp", "lamb", "lion", "nadamw", "adafactor", "madgradw")


@pytest.mark.parametrize("name", TIMM)
def test_timm_optimisers(name: str) -> None:
    optim = pytest.importorskip("timm.optim")
    model = toy()
    optimizer = optim.create_optimizer_v2(model, opt=name, lr=0.01, weight_decay=0.05)
    step(model, optimizer)
    masks = ticket(model)
    with hold(model, masks):
        for _ in range(3):
            step(model, optimizer)
            assert survivors_only(model, masks)


def test_slow_weights_older_than_the_cut() -> None:
    optim = pytest.importorskip("timm.optim")
    model = toy()
    optimizer = optim.create_optimizer_v2(model, opt="lookahead_sgd", lr=0.01)
    for _ in range(6):
        step(model, optimizer)
    masks = ticket(model)
    with hold(model, masks):
        for _ in range(6):  # the sixth writes the slow weights back
            step(model, optimizer)
        assert survivors_only(model, masks)


def test_averages_written_back_are_found_on_leaving() -> None:
    model = toy()
    average, masks = torch.optim.swa_utils.AveragedModel(model), ticket(model)
    with pytest.raises(MaskError, match=r"'0.weight' leaves hold\(\) with \d+ cut weights"), hold(model, masks):
        step(model, SGD(model.parameters(), lr=0.1))
        model.load_state_dict(average.module.state_dict())


def test_grad_scaler_with_clipping_sees_the_ticket_only() -> None:
    model = toy()
    masks, optimizer = ticket(model), SGD(model.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with hold(model, masks):
        for _ in range(3):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(torch.randn(4, 3, 6, 6)).square().mean()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            named = dict(model.named_parameters())
            kept = [p.grad[masks[name]] if name in masks else p.grad for name, p in named.items()]
            scale = 0.1 / (norm + 1e-6)
            assert torch.cat([grad.flatten() for grad in kept]).norm() == pytest.approx(float(norm * scale), rel=1e-4)
            scaler.step(optimizer)
            scaler.update()
            assert survivors_only(model, masks)


def test_infinite_gradients_of_cut_weights_become_zero() -> None:
    model = nn.Linear(3, 1, bias=False)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    with hold(model, Masks({"weight": torch.tensor([[True, False, False]])})):
        model(torch.tensor([1.0, torch.inf, torch.nan]).where(torch.tensor([True, False, False]), 1.0)).backward()
        assert model.weight.grad.tolist() == [[1, 0, 0]]
        model.weight.grad = None
        (model.weight * torch.tensor([1.0, torch.inf, torch.nan])).sum().backward()
        assert model.weight.grad.tolist() == [[1, 0, 0]]
        optimizer.step()
        model.weight.grad = torch.full((1, 3), torch.inf)  # by hand, so not through autograd
        optimizer.step()
        assert model.weight.tolist() == [[-torch.inf, 0, 0]]


def by_hand(model: nn.Module) -> None:
    with torch.no_grad():
        model[4].weight.add_(1)


def by_loading(model: nn.Module) -> None:
    model.load_state_dict(toy().state_dict())


def by_replacing(model: nn.Module) -> None:
    model[4].weight = nn.Parameter(torch.ones(4, 96))


def by_nan(model: nn.Module) -> None:
    model[4].weight.data.fill_(torch.nan)


@pytest.mark.parametrize("write", [by_hand, by_loading, by_replacing, by_nan])
def test_a_write_behind_its_back_is_found_on_leaving(write: Callable[[nn.Module], None]) -> None:
    model = toy()
    masks = ticket(model)
    whole = Masks({**masks, "0.weight": torch.ones_like(masks["0.weight"])})
    cut = int((~masks["4.weight"]).sum())
    with pytest.raises(MaskError, match=rf"'4.weight' leaves hold\(\) with {cut} cut weights"), hold(model, whole):
        write(model)
    with hold(model, whole):  # a step, or masks.apply_, after the write mends it
        write(model)
        whole.apply_(model)


def test_an_exception_is_not_hidden_and_hooks_are_gone() -> None:
    model = toy()
    hooks = len(_global_optimizer_post_hooks)
    with pytest.raises(ZeroDivisionError), hold(model, ticket(model)):
        assert len(_global_optimizer_post_hooks) == hooks + 1
        by_hand(model)
        raise ZeroDivisionError
    assert len(_global_optimizer_post_hooks) == hooks
    assert not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())


def test_masks_that_do_not_fit_hook_nothing() -> None:
    hooks = len(_global_optimizer_post_hooks)
    with pytest.raises(MaskError, match="lacks"), hold(toy(), Masks({"nowhere": torch.zeros(1, dtype=torch.bool)})):
        pass
    assert len(_global_optimizer_post_hooks) == hooks


def test_dense_masks_hook_nothing() -> None:
    model = toy()
    hooks = len(_global_optimizer_post_hooks)
    with hold(model, Masks.dense(model)):
        assert len(_global_optimizer_post_hooks) == hooks
        assert not any(parameter._post_accumulate_grad_hooks for parameter in model.parameters())


def test_nested_and_renewed_holds_and_a_frozen_parameter() -> None:
    model = toy()
    model[0].weight.requires_grad_(False)
    wide = ticket(model, 0.8)
    narrow = Masks({name: mask & ticket(model, 0.5)[name] for name, mask in wide.items()})
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    with hold(model, wide):
        step(model, optimizer)
        with hold(model, narrow):
            step(model, optimizer)
            assert survivors_only(model, narrow)
        step(model, optimizer)
    with hold(model, narrow):
        step(model, optimizer)
        assert survivors_only(model, narrow)


def test_copies_and_averages_are_left_alone_and_can_be_masked() -> None:
    model = toy()
    masks, optimizer = ticket(model), SGD(model.parameters(), lr=0.1)
    ema = torch.optim.swa_utils.AveragedModel(model)  # made before the cut: its zeros are not exact
    with hold(model, masks):
        step(model, optimizer)
        copied = copy.deepcopy(model)
        ema.update_parameters(model)
        ema.update_parameters(model)
    assert survivors_only(copied, masks)
    other = SGD(copied.parameters(), lr=0.1)
    step(copied, other)
    assert not survivors_only(copied, masks)  # no hook travelled with the copy
    for replica in (copied, ema):
        masks.apply_(replica)
    assert survivors_only(copied, masks) and survivors_only(ema.module, masks)
