"""SynFlow: which weights carry the most of an all-ones signal, without any data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from prunekit.calibration import Calibration
from prunekit.errors import SelectionError
from prunekit.score import FromData, Scores
from prunekit.select import parameters


def synflow(*, times: int = 100) -> FromData:
    """Score ``|w| * dR/d|w|``, where R is the sum of the output for an input of ones with every weight's sign removed.

    One shot of it empties whole layers, so ``prune`` cuts in ``times`` geometric steps of density, scoring anew before
    each. Everything is computed in float64, in eval mode: products over a deep network leave float32's range. Of the
    calibration data only the shape of one input is used. Where a network subtracts what it finds from its input, R
    falls with the signal, so it is the size of the product that counts.

    Formula:
        s(w) = ``|w ∂R / ∂w|``, with R = ``Σ f(1; |w|)``, the outputs for an input of ones

    Raises:
        SelectionError: the network has no floating-point input, does not run in float64, or R is not finite.

    Reference:
        Tanaka et al. 2020, arXiv 2006.05467, equation 1 and algorithm 1 (100 iterations, exponential schedule).

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False))
        >>> with torch.no_grad():
        ...     _ = model[0].weight.copy_(torch.tensor([[3.0, -2.0]])), model[1].weight.fill_(-5)
        >>> scores = synflow()(model, Calibration([torch.zeros(4, 2)]))
        >>> scores["0.weight"].tolist(), scores["1.weight"].tolist()
        ([[15.0, 10.0]], [[25.0]])
    """

    def score(model: nn.Module, data: Calibration) -> Scores:
        ones = _ones(next(iter(data.inputs(model))))
        named = {name: each for name, each in parameters(model).items() if each.is_floating_point()}
        scores: dict[str, Tensor] = {}

        def arrived(name: str, parameter: Tensor) -> None:
            assert parameter.grad is not None
            scores[name], parameter.grad = parameter.grad.mul_(parameter.detach()).abs_(), None
            parameter.data = parameter.data.new_empty(0)  # not needed any more, so that scores take its place in memory

        with _linear(model):
            handles = [each.register_post_accumulate_grad_hook(partial(arrived, name)) for name, each in named.items()]
            try:
                signal = sum((leaf.sum() for leaf in _tensors(model(ones))), torch.zeros((), dtype=torch.float64))
                signal.backward()
            except RuntimeError as cause:
                raise SelectionError(f"synflow runs the network in float64, which failed: {cause}") from cause
            finally:
                for handle in handles:
                    handle.remove()
        if not torch.isfinite(signal):
            raise SelectionError(f"synflow's signal is {signal.item()}: the network multiplies beyond float64's range.")
        unused = named.keys() - scores.keys()
        return scores | {name: torch.zeros_like(named[name], dtype=torch.float64) for name in unused}

    return FromData(score, times=times)


def _ones(x: Any) -> Any:
    if not all(leaf.is_floating_point() for leaf in _tensors(x)):
        raise SelectionError("synflow feeds ones to the network, so its input must be floating-point.")
    return tree_map(lambda leaf: torch.ones_like(leaf[:1]).double() if isinstance(leaf, Tensor) else leaf, x)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


@contextmanager
def _linear(model: nn.Module) -> Iterator[None]:
    """Put absolute values in float64 in place of all parameters and buffers, then what was there, bit for bit."""
    held = [each for each in (*model.parameters(), *model.buffers()) if each.is_floating_point()]
    before = [(each, each.data) for each in held]
    model.eval()
    try:
        for each in held:
            each.grad = None
            each.data = each.data.to(torch.float64, copy=True).abs_()  # a copy: what is float64 must not lose its signs
            if isinstance(each, nn.Parameter):
                each.requires_grad_(True)
        yield
    finally:
        for each, data in before:
            each.grad = None
            each.data = data
