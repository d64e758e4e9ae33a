"""Scores from losses: SNIP, GraSP, Taylor and Fisher; any loss will do, of a class or of every pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from prunekit.calibration import Calibration
from prunekit.errors import SelectionError
from prunekit.score import FromData, Lazy, Scores, wide
from prunekit.select import parameters


def snip() -> FromData:
    """Score ``|g * w|``: how much the loss feels a weight's removal; g is the gradient over all calibration batches.

    The paper divides by the sum of all scores, which moves no rank, and is left out here. It scores an initialisation;
    at trained weights this is first-order Taylor pruning with the signs of the batches cancelling.

    Formula:
        s(w) = ``|g w|``, with g = ``∂L / ∂w``, L the sum of the batches' losses

    Reference:
        Lee et al. 2019, arXiv 1810.02340, equations 4 and 5.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[3.0, -2.0]]))
        >>> data = Calibration([torch.tensor([[1.0, 4.0]])], lambda model, x: model(x).sum())
        >>> snip()(model, data)["weight"]
        tensor([[3., 8.]])
    """

    def score(model: nn.Module, data: Calibration) -> Scores:
        gradients = _summed(model, data.losses(model))
        return _lazy(model, lambda name, weight: (weight * wide(gradients[name])).abs_())

    return FromData(score)


def taylor() -> FromData:
    """Score ``(g * w)^2``, averaged over the calibration batches: the squared first-order change of each batch's loss.

    Formula:
        s(w) = ``mean over batches b of (g_b w)²``, with g_b = ``∂L_b / ∂w``

    Reference:
        Molchanov et al. 2019, arXiv 1906.10771, equation 8, for single weights instead of filters.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[3.0, -2.0]]))
        >>> batches = [torch.tensor([[1.0, 4.0]]), torch.tensor([[-1.0, 0.0]])]
        >>> taylor()(model, Calibration(batches, lambda model, x: model(x).sum()))["weight"]
        tensor([[ 9., 32.]])
    """

    def score(model: nn.Module, data: Calibration) -> Scores:
        mean = _mean_square(model, data.losses(model))
        return _lazy(model, lambda name, weight: weight.square() * mean[name])

    return FromData(score)


def fisher() -> FromData:
    """Score ``F * w^2 / 2``, the second-order rise of the loss, with the diagonal of the empirical Fisher matrix as F.

    F is the mean over single examples of their squared gradients, in eval mode; it stands in for the second derivatives
    of Optimal Brain Damage, whose saliency this is, and equals them in expectation at a minimum of a log-likelihood.

    Formula:
        s(w) = ``F w² / 2``, with F = ``mean over examples i of (∂L_i / ∂w)²``

    Reference:
        LeCun et al. 1990, "Optimal Brain Damage", equation 5; Theis et al. 2018, arXiv 1801.05787, equation 6.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[3.0, -2.0]]))
        >>> examples = torch.tensor([[1.0, 4.0], [-1.0, 0.0]])
        >>> fisher()(model, Calibration([examples], lambda model, x: model(x).sum()))["weight"]
        tensor([[ 4.5000, 16.0000]])
    """

    def score(model: nn.Module, data: Calibration) -> Scores:
        model.eval()  # batches of one would upset the norms' statistics
        mean = _mean_square(model, data.examples(model))
        return _lazy(model, lambda name, weight: weight.square() * mean[name] / 2)

    return FromData(score)


def grasp() -> FromData:
    """Score ``w * Hg``: keep what the flow of gradients, ``g.g``, would miss; g and H over all calibration batches.

    The sign is the paper's turned round, as higher is kept here. For classes it also divides the outputs by a
    temperature of 200; the loss is yours, so do that in it if you want it.

    Formula:
        s(w) = ``w (H g)``, with g = ``∂L / ∂w`` and H = ``∂²L / ∂w∂w``

    Raises:
        SelectionError: an operator of the network cannot be differentiated twice.

    Reference:
        Wang et al. 2020, arXiv 2002.07376, equation 8 and algorithm 2.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[3.0, -2.0]]))
        >>> data = Calibration([torch.tensor([[1.0, 2.0]])], lambda model, x: model(x).square().sum() / 2)
        >>> grasp()(model, data)["weight"]  # g = (-1, -2), H = [[1, 2], [2, 4]], Hg = (-5, -10)
        tensor([[-15.,  20.]])
    """

    def score(model: nn.Module, data: Calibration) -> Scores:
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
            devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
            with torch.random.fork_rng(devices=list(devices)):  # dropout leaves the same out of both passes
                gradients = _summed(model, data.losses(model))
            products = _hessian_times(model, data.losses(model), gradients)
        del gradients
        return _lazy(model, lambda name, weight: weight * wide(products[name]))

    return FromData(score)


def _differentiable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the floating-point parameters, frozen ones thawed, without gradients."""
    named = {name: each for name, each in parameters(model).items() if each.is_floating_point()}
    for parameter in named.values():
        parameter.requires_grad_(True)
        parameter.grad = None
    return named


def _backward(losses: Iterable[Tensor]) -> Iterator[None]:
    for loss in losses:
        if loss.ndim or not torch.isfinite(loss):
            found = f"of shape {tuple(loss.shape)}" if loss.ndim else f"{loss.item()}"
            raise SelectionError(f"the loss on the calibration data is {found}; it must be a finite scalar.")
        loss.backward()
        yield


def _summed(model: nn.Module, losses: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return the gradients of all losses together; zeros where no loss depends on a parameter."""
    named = _differentiable(model)
    for _ in _backward(losses):
        pass
    return {name: _take(parameter) for name, parameter in named.items()}


def _mean_square(model: nn.Module, losses: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return the mean over losses of their squared gradients."""
    named = _differentiable(model)
    squares = {name: torch.zeros_like(wide(parameter.detach())) for name, parameter in named.items()}
    count = 0
    for _ in _backward(losses):
        count += 1
        for name, parameter in named.items():
            if parameter.grad is not None:
                squares[name].addcmul_(wide(parameter.grad), wide(parameter.grad))
                parameter.grad = None
    return {name: square.div_(max(1, count)) for name, square in squares.items()}


def _hessian_times(model: nn.Module, losses: Iterable[Tensor], vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the product of the losses' Hessian and a vector."""
    named = _differentiable(model)
    weights = list(named.values())
    try:
        for loss in losses:
            slopes = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
            pairs = [(slope, vector[name]) for name, slope in zip(named, slopes, strict=True) if slope is not None]
            flow = torch.stack([(wide(slope) * wide(along)).sum() for slope, along in pairs]).sum()
            if flow.requires_grad:  # a loss linear in the weights has no curvature
                flow.backward()
    except RuntimeError as cause:
        raise SelectionError(f"grasp differentiates twice, which this network does not allow: {cause}") from cause
    return {name: _take(parameter) for name, parameter in named.items()}


def _take(parameter: nn.Parameter) -> Tensor:
    gradient, parameter.grad = parameter.grad, None
    return torch.zeros_like(parameter, requires_grad=False) if gradient is None else gradient


def _lazy(model: nn.Module, score: Callable[[str, Tensor], Tensor]) -> Lazy:
    weights = {name: each.detach() for name, each in parameters(model).items() if each.is_floating_point()}
    return Lazy(lambda name, weight: score(name, wide(weight)), weights)
