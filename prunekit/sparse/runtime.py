"""Compile: a pruned network, its layers and as a whole, on what is fastest as measured on this machine."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from prunekit.environment import trim_heap
from prunekit.measure import evaluating
from prunekit.native import kernels, missing
from prunekit.sparse.engine.maps import SPARSE_ENOUGH, density
from prunekit.sparse.engine.planned import Planned, takes
from prunekit.sparse.engine.tune import Memo
from prunekit.sparse.modules import SparseConv2d, SparseLinear

GAIN = 0.95
"""A sparse layer is taken when it needs at most this share of the dense one's time."""
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

    The network is traced with ``example``. Chains of operators that pass over maps row by row (norms over channels,
    1x1 and depthwise convolutions, gates, residuals, the products of attention across channels) run in one go, in bands
    of rows that stay in the cache; all other convolutions and linear layers with enough zeros run on sparse kernels;
    the rest is torch's. For each part, and for the whole, torch and we are timed on this machine with as many threads
    as torch has, and the faster one stays; what was measured is kept below the user's cache folder.

    Inputs of other shapes work, too: layer by layer at first, and traced anew when a shape comes for the second time.
    A network that cannot be traced stays with the sparse layers. Where the kernels were not built, the copy is dense,
    and a ``RuntimeWarning`` says so.

    Args:
        model: its cut weights are zero; weights, modes and ``state_dict`` stay as they are.
        example: one input, on the CPU, as ``model(example)`` takes it.

    Returns:
        The copy, in eval mode. Use it under ``torch.no_grad()`` or ``torch.inference_mode()``: where gradients are
        asked for, its layers are dense. Its weights are not to change any more: the kernels hold copies of them. Hooks
        on modules inside it are not called where the network runs as a whole.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
        >>> fast = compile(model, torch.zeros(1, 64))
        >>> with torch.no_grad():
        ...     bool(torch.allclose(fast(torch.ones(2, 64)), model(torch.ones(2, 64)), atol=1e-5))
        True
    """
    fast = copy.deepcopy(model).eval()
    trials = [trial for module in fast.modules() if (trial := _trial(module)) is not None]
    if kernels() is None:
        if trials:
            message = f"prunekit.sparse.compile found no compiled kernels, and every layer stays dense: {missing()}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        return fast
    _take_faster(trials, fast, example)
    if takes(example) and "forward" not in vars(fast):
        planned = Planned(fast)
        if planned.prepare(example):
            fast.__dict__["forward"] = planned
            for trial in trials:
                trial.fast.forget()  # the plan has weights of its own
    trim_heap()  # of what was only measured
    return fast


def _take_faster(trials: Sequence[_Trial], network: nn.Module, example: Any) -> None:
    """Run the network, and set those stand-ins that are faster on the inputs that their layers get."""
    memo = Memo()
    handles = [trial.layer.register_forward_hook(_timed(trial, memo), with_kwargs=True) for trial in trials]
    try:
        with evaluating(network):
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    memo.save()
    for trial in trials:
        dense_s, sparse_s = trial.seconds
        if sparse_s < GAIN * dense_s:
            trial.layer.__dict__["forward"] = trial.fast  # names, types and state_dict stay


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


def _timed(trial: _Trial, memo: Memo) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        ways = [partial(way, *args, **kwargs) for way in (module.forward, trial.fast)]
        inputs = [(tuple(x.shape), x.is_contiguous()) for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        what = (str(module), round(density(trial.layer.weight), 2), inputs)
        for place, seconds in enumerate(memo.seconds(what, lambda: ways)):
            trial.seconds[place] += seconds

    return hook
