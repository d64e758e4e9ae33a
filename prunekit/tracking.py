"""Movement: whether training pushes a weight away from zero or towards it, gathered step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from prunekit.calibration import Calibration
from prunekit.errors import SelectionError
from prunekit.score import FromData, Lazy, Scores, wide
from prunekit.select import parameters


def movement() -> FromData:
    """Score ``-sum over steps of g * w``: positive where the steps of training grew the weight.

    In a run the training loop gathers the sum, from each stage's start on. In one's own loop `track` does. A cut
    weight's score stands still, and none comes back; the paper learns its masks with a straight-through estimator, in
    which it may.

    Formula:
        s(w) = ``-Σ g_t w_t``, over the steps t of training

    Reference:
        Sanh et al. 2020, arXiv 2005.07683, equation 4 without the learning rate, which moves no rank while it is
        constant.

    Raises:
        SelectionError: the calibration has no movement.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[3.0, -2.0]]))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with track(model) as moved:
        ...     model(torch.tensor([[1.0, 4.0]])).sum().backward()
        ...     optimizer.step()
        >>> movement()(model, Calibration(movement=moved))["weight"]
        tensor([[-3.,  8.]])
    """

    def score(model: nn.Module, data: Calibration) -> Scores:
        if data.movement is None:
            raise SelectionError(
                "movement looks at how training moved the weights: train inside `with prunekit.track(model) as moved:` "
                "and pass data=prunekit.Calibration(movement=moved)."
            )
        moved = {name: sums for name, sums in data.movement.items() if name in parameters(model)}
        return Lazy(lambda name, sums: sums, moved)

    return FromData(score, tracks=True)


@contextmanager
def track(model: nn.Module, moved: Mapping[str, Tensor] | None = None) -> Iterator[dict[str, Tensor]]:
    """Gather ``-sum of g * w`` before every step of any torch optimiser that has the model's parameters.

    Args:
        model: bare or wrapped.
        moved: sums to go on from; not changed.

    Yields:
        Canonical parameter name -> the sums so far, of the parameter's shape, on its device, in float32 or wider.
    """
    named = {name: each for name, each in parameters(model).items() if each.is_floating_point()}
    sums = {
        name: moved[name].to(each.device, copy=True) if moved else torch.zeros_like(wide(each.detach()))
        for name, each in named.items()
    }
    stepping: Optimizer | None = None

    def before(optimizer: Optimizer, *_: Any) -> None:
        nonlocal stepping
        # One that wraps another has counted this step; the same one again has failed in between. A gradient scaler
        # leaves it to a fused optimiser to divide by the scale, and to skip the step.
        if stepping not in (None, optimizer) or float(getattr(optimizer, "found_inf", None) or 0):
            return
        stepping = optimizer
        scale = float(getattr(optimizer, "grad_scale", None) or 1)
        ours = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for name, each in named.items():
            if each.grad is not None and id(each) in ours:
                if sums[name].device != each.device:
                    sums[name] = sums[name].to(each.device)
                sums[name].addcmul_(wide(each.grad), wide(each.detach()), value=-1 / scale)

    def after(optimizer: Optimizer, *_: Any) -> None:
        nonlocal stepping
        stepping = None if optimizer is stepping else stepping

    handles = (register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after))
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()
