"""The kernel of the gated feed-forward layer against torch in float64, both ways; where it does not go, torch does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from prunekit import native
from prunekit_mir_l.gated import by_torch, gated

needs_kernels = pytest.mark.skipif(native.kernels() is None, reason="the kernels were not built: no C compiler")


@pytest.fixture(params=native.LEVELS)
def level(request: pytest.FixtureRequest) -> object:
    """The kernels' copies one after the other, as far as this machine can run them."""
    if native.library().pk_machine(request.param) != request.param:
        pytest.skip("not on this machine")
    yield request.param
    native.library().pk_machine(native.LEVELS[0])


def tensors(batch: int, half: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, 2 * half, height, width), (2 * half, 1, 3, 3), (batch, half, height, width))
    x, taps, slope = (torch.randn(shape, generator=generator) for shape in shapes)
    return 3 * x, taps, slope


def slopes(function: object, x: Tensor, taps: Tensor, slope: Tensor) -> list[Tensor]:
    """The product, and what comes back to the map and the taps."""
    given = [tensor.clone().requires_grad_() for tensor in (x, taps)]
    product = function(*given)  # type: ignore[operator]
    return [product.detach(), *torch.autograd.grad(product, given, slope)]


@needs_kernels
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 3, 1, 9), (1, 64, 5, 1), (3, 70, 7, 13), (2, 129, 6, 8), (1, 255, 16, 16)]
)
@pytest.mark.parametrize("threads", [1, 2])
def test_it_is_torch_in_both_directions(shape: tuple[int, int, int, int], threads: int, level: int) -> None:
    x, taps, slope = tensors(*shape)
    torch.set_num_threads(threads)
    try:
        found = slopes(gated, x, taps, slope)
    finally:
        torch.set_num_threads(1)
    right = slopes(by_torch, x.double(), taps.double(), slope.double())
    for ours, theirs in zip(found, right, strict=True):
        assert (ours - theirs).abs().max() <= 2e-6 * theirs.abs().max()


@needs_kernels
def test_threads_change_no_bit() -> None:
    x, taps, slope = tensors(2, 130, 9, 9)
    one = slopes(gated, x, taps, slope)
    torch.set_num_threads(2)
    try:
        two = slopes(gated, x, taps, slope)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@needs_kernels
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_goes_where_it_goes_in_torch(bad: float) -> None:
    x, taps, slope = tensors(1, 20, 6, 6)
    x[0, 3, 2, 2] = bad
    for ours, theirs in zip(slopes(gated, x, taps, slope), slopes(by_torch, x, taps, slope), strict=True):
        assert torch.equal(ours.isfinite(), theirs.isfinite())
        assert theirs.isfinite().any()
        assert not theirs.isfinite().all()


@needs_kernels
def test_channels_first_and_sliced_weights_are_taken() -> None:
    x, taps, slope = tensors(2, 8, 5, 5)
    wide = torch.zeros(32, 1, 3, 3)
    wide[::2] = taps
    assert torch.equal(slopes(gated, x, wide[::2], slope)[0], slopes(gated, x, taps, slope)[0])


@needs_kernels
def test_slopes_have_slopes() -> None:
    x, taps, _ = (tensor.double() for tensor in tensors(1, 2, 3, 3))
    assert torch.autograd.gradgradcheck(by_torch, (x.requires_grad_(), taps.requires_grad_()))
    second = []
    for function in (gated, by_torch):
        given = [tensor.detach().float().requires_grad_() for tensor in (x, taps)]
        first = torch.autograd.grad(function(*given).square().sum(), given, create_graph=True)
        second.append(torch.autograd.grad(sum(slope.square().sum() for slope in first), given))
    for ours, theirs in zip(*second, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4)


def test_float64_and_what_watches_torch_get_torchs_operators() -> None:
    x, taps, _ = tensors(1, 2, 4, 4)
    assert torch.equal(gated(x.double(), taps.double()), by_torch(x.double(), taps.double()))
    with FlopCounterMode(display=False) as counter:
        gated(x, taps)
    assert counter.get_total_flops() == 2 * 4 * 4 * 4 * 9  # two for each of 4 channels' 16 pixels' 9 taps
