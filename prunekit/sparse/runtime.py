"""Compile: each layer of a pruned network on the faster of dense and sparse kernels, as measured on this machine."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from prunekit.measure import evaluating
from prunekit.sparse.modules import SparseConv2d, SparseLinear
from prunekit.sparse.native import kernels, missing

ROUNDS = 5
GAIN = 0.95
"""A sparse layer is taken when it needs at most this share of the dense one's time."""
SPARSE_ENOUGH = 0.5
"""Layers of which more is left are not tried: no kernel here gains on them."""

Layer = nn.Conv2d | nn.Linear
Fast = SparseConv2d | SparseLinear


@final
@dataclass
class _Trial:
    """A layer, its stand-in, and the seconds that each took over all calls of one forward pass."""

    layer: Layer
    fast: Fast
    seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])


def compile(model: nn.Module, example: Any) -> nn.Module:
    """Return a copy of a pruned network that computes the same faster on a CPU.

    Every convolution and linear layer with enough zeros is timed both ways on what reaches it when the network sees
    ``example``, with as many threads as torch has; the faster one stays. Inputs of other sizes work, too, with the
    same choice. Where the kernels were not built, the copy is dense, and a ``RuntimeWarning`` says so.

    Args:
        model: its cut weights are zero; weights, modes and ``state_dict`` stay as they are.
        example: one input, on the CPU, as ``model(example)`` takes it.

    Returns:
        The copy, in eval mode. Use it under ``torch.no_grad()`` or ``torch.inference_mode()``: where gradients are
        asked for, its layers are dense. Its weights are not to change any more: the kernels hold copies of them.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
        >>> fast = compile(model, torch.zeros(1, 64))
        >>> with torch.no_grad():
        ...     bool(torch.allclose(fast(torch.ones(2, 64)), model(torch.ones(2, 64)), atol=1e-5))
        True
    """
    fast = copy.deepcopy(model).eval()
    trials = [trial for module in fast.modules() if (trial := _trial(module)) is not None]
    if trials and kernels() is None:
        message = f"prunekit.sparse.compile found no compiled kernels, and every layer stays dense: {missing()}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return fast
    handles = [trial.layer.register_forward_hook(_timed(trial), with_kwargs=True) for trial in trials]
    try:
        with evaluating(fast):
            fast(example)
    finally:
        for handle in handles:
            handle.remove()
    for trial in trials:
        dense_s, sparse_s = trial.seconds
        if sparse_s < GAIN * dense_s:
            trial.layer.__dict__["forward"] = trial.fast  # names, types and state_dict stay
    return fast


def _trial(module: nn.Module) -> _Trial | None:
    if type(module) is nn.Linear:
        make: Callable[[Any], Fast] = SparseLinear
    elif type(module) is nn.Conv2d and SparseConv2d.fits(module):
        make = SparseConv2d
    else:
        return None
    weight = module.weight
    sparse = weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.numel() > 0
    if not sparse or int(torch.count_nonzero(weight)) > SPARSE_ENOUGH * weight.numel():
        return None
    return _Trial(module, make(module))


def _timed(trial: _Trial) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        for place, seconds in enumerate(_race([partial(way, *args, **kwargs) for way in (module.forward, trial.fast)])):
            trial.seconds[place] += seconds

    return hook


def _race(ways: Sequence[Callable[[], Any]]) -> list[float]:
    """Return the least seconds that each way took; they take turns, so that a busy machine slows all of them."""
    best = [float("inf")] * len(ways)
    for _ in range(ROUNDS):
        for place, way in enumerate(ways):
            began_s = time.perf_counter()
            way()
            best[place] = min(best[place], time.perf_counter() - began_s)
    return best
