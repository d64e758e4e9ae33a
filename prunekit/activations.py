"""Wanda: magnitude times the size of what the weight multiplies, from one pass over a few inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from prunekit.calibration import Calibration
from prunekit.score import FromData, Lazy, Scores, wide
from prunekit.select import parameters

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def wanda() -> FromData:
    """Score ``|w| * ||x||``: x is the input that the weight multiplies, over all calibration data, in eval mode.

    The paper compares the weights of one output only: use it with the allocation ``per_output``. In a
    convolution all positions of a kernel share the norm of their channel: borders aside, they see the same values.
    Weights of layers that are never called, or that are neither linear nor convolutions, get no score.

    Formula:
        s(w) = ``|w| ‖x‖``, with ``‖x‖ = √(Σ x²)`` over all that w multiplies

    Reference:
        Sun et al. 2023, arXiv 2306.11695, equation 1.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[3.0, -2.0]]))
        >>> wanda()(model, Calibration([torch.tensor([[3.0, 1.0], [4.0, 0.0]])]))["weight"]
        tensor([[15.,  2.]])
    """

    def score(model: nn.Module, data: Calibration) -> Scores:
        names = {id(parameter): name for name, parameter in parameters(model).items()}
        squares: dict[str, dict[nn.Module, Tensor]] = {}
        model.eval()
        with _watching(model, names, squares), torch.no_grad():
            for batch in data.inputs(model):
                model(batch)

        def product(name: str, weight: Tensor) -> Tensor:
            spread = [_spread(found, module, weight) for module, found in squares[name].items()]
            return weight.abs() * torch.stack(torch.broadcast_tensors(*spread)).sum(0).sqrt()

        return Lazy(product, {name: parameters(model)[name].detach() for name in squares})

    return FromData(score)


@contextmanager
def _watching(
    model: nn.Module, names: Mapping[int, str], squares: dict[str, dict[nn.Module, Tensor]]
) -> Iterator[None]:
    """Add up each layer's squared inputs by channel, under its weight's name; tied weights have several layers."""

    def add(name: str, module: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Tensor]) -> None:
        x = wide(args[0] if args else kwargs["input"])
        axis = -1 if isinstance(module, nn.Linear) else x.ndim - _dims(module) - 1
        others = [each for each in range(x.ndim) if each != axis % x.ndim]
        found = x.square().sum(dim=others)
        of = squares.setdefault(name, {})
        of[module] = of[module] + found if module in of else found

    found = [module for module in model.modules() if isinstance(module, _LAYERS) and id(module.weight) in names]
    handles = [
        module.register_forward_pre_hook(partial(add, names[id(module.weight)]), with_kwargs=True) for module in found
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _dims(module: nn.Module) -> int:
    return len(module.kernel_size) if isinstance(module.kernel_size, tuple) else 1


def _spread(channels: Tensor, module: nn.Module, weight: Tensor) -> Tensor:
    """Return each input channel's number at every weight that multiplies it."""
    if isinstance(module, nn.Linear):
        return channels
    kernel = [1] * (weight.ndim - 2)
    if isinstance(module, _TRANSPOSED):  # (inputs, outputs of a group, *kernel)
        return channels.reshape(-1, 1, *kernel)
    groups = len(channels) // weight.shape[1]
    per_group = channels.reshape(groups, 1, -1)  # (outputs, inputs of a group, *kernel)
    outputs = weight.shape[0] // per_group.shape[0]
    return per_group.expand(-1, outputs, -1).reshape(weight.shape[0], -1, *kernel)
