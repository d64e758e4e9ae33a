"""The kernel of depthwise convolutions, alone and gated, against torch in float64; where it does not go, torch does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from prunekit import native
from prunekit_mir_l.depthwise import by_torch, depthwise, gated

Convolve = Callable[[Tensor, Tensor], Tensor]
BOTH = pytest.mark.parametrize(
    ("ours", "theirs"), [(depthwise, partial(by_torch, halves=1)), (gated, partial(by_torch, halves=2))]
)
needs_kernels = pytest.mark.skipif(native.kernels() is None, reason="the kernels were not built: no C compiler")


@pytest.fixture(params=native.LEVELS)
def level(request: pytest.FixtureRequest) -> object:
    """The kernels' copies one after the other, as far as this machine can run them."""
    if native.library().pk_machine(request.param) != request.param:
        pytest.skip("not on this machine")
    yield request.param
    native.library().pk_machine(native.LEVELS[0])


def tensors(batch: int, half: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, 2 * half, height, width), (2 * half, 1, 3, 3))
    x, taps = (torch.randn(shape, generator=generator) for shape in shapes)
    return 3 * x, taps


def slopes(function: Convolve, x: Tensor, taps: Tensor) -> list[Tensor]:
    """The result, and what comes back from it to the map and the taps."""
    given = [tensor.clone().requires_grad_() for tensor in (x, taps)]
    result = function(*given)
    slope = torch.randn(result.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float32).to(x.dtype)
    return [result.detach(), *torch.autograd.grad(result, given, slope)]


@needs_kernels
@BOTH
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 3, 1, 9), (1, 64, 5, 1), (3, 70, 7, 13), (2, 129, 6, 8), (1, 255, 16, 16)]
)
@pytest.mark.parametrize("threads", [1, 2])
def test_it_is_torch_in_both_directions(
    ours: Convolve, theirs: Convolve, shape: tuple[int, int, int, int], threads: int, level: int
) -> None:
    x, taps = tensors(*shape)
    torch.set_num_threads(threads)
    try:
        found = slopes(ours, x, taps)
    finally:
        torch.set_num_threads(1)
    for one, right in zip(found, slopes(theirs, x.double(), taps.double()), strict=True):
        assert (one - right).abs().max() <= 2e-6 * right.abs().max()


@needs_kernels
@BOTH
def test_threads_change_no_bit(ours: Convolve, theirs: Convolve) -> None:
    x, taps = tensors(2, 130, 9, 9)
    one = slopes(ours, x, taps)
    torch.set_num_threads(2)
    try:
        two = slopes(ours, x, taps)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@needs_kernels
@BOTH
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_goes_where_it_goes_in_torch(ours: Convolve, theirs: Convolve, bad: float) -> None:
    x, taps = tensors(1, 20, 6, 6)
    x[0, 3, 2, 2] = bad
    found, right = slopes(ours, x, taps), slopes(theirs, x, taps)
    for one, other in zip(found, right, strict=True):
        assert torch.equal(one.isfinite(), other.isfinite())
    assert not all(tensor.isfinite().all() for tensor in right)


@needs_kernels
@BOTH
def test_channels_first_and_sliced_weights_are_taken(ours: Convolve, theirs: Convolve) -> None:
    x, taps = tensors(2, 8, 5, 5)
    wide = torch.zeros(32, 1, 3, 3)
    wide[::2] = taps
    laid = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(slopes(ours, x, wide[::2])[0], slopes(ours, laid, taps)[0])


@needs_kernels
@BOTH
def test_slopes_have_slopes(ours: Convolve, theirs: Convolve) -> None:
    x, taps = (tensor.double() for tensor in tensors(1, 2, 3, 3))
    assert torch.autograd.gradgradcheck(theirs, (x.requires_grad_(), taps.requires_grad_()))
    second = []
    for function in (ours, theirs):
        given = [tensor.detach().float().requires_grad_() for tensor in (x, taps)]
        first = torch.autograd.grad(function(*given).square().sum(), given, create_graph=True)
        second.append(torch.autograd.grad(sum(slope.square().sum() for slope in first), given))
    for one, right in zip(*second, strict=True):
        assert torch.allclose(one, right, rtol=1e-4)


@needs_kernels
@BOTH
@pytest.mark.parametrize("frozen", [0, 1])
def test_what_is_frozen_has_no_slope_and_hinders_none(ours: Convolve, theirs: Convolve, frozen: int) -> None:
    found = []
    for function in (ours, theirs):
        given = [tensor.clone().requires_grad_(place != frozen) for place, tensor in enumerate(tensors(1, 2, 3, 3))]
        (first,) = torch.autograd.grad(function(*given).square().sum(), given[1 - frozen], create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), given[1 - frozen])[0])
    assert torch.allclose(*found, rtol=1e-4)


@needs_kernels
@BOTH
def test_many_slopes_at_a_time(ours: Convolve, theirs: Convolve) -> None:
    given = [tensor.requires_grad_() for tensor in tensors(1, 2, 3, 3)]
    slopes = torch.eye(theirs(*given).numel()).view(-1, *theirs(*given).shape)
    found, right = (torch.autograd.grad(f(*given), given, slopes, is_grads_batched=True) for f in (ours, theirs))
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, right, strict=True))


@needs_kernels
@BOTH
def test_another_default_type_and_another_layout_of_what_was_saved_change_nothing(
    ours: Convolve, theirs: Convolve
) -> None:
    x, taps = tensors(2, 5, 4, 4)
    right = slopes(ours, x, taps)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autograd.graph.saved_tensors_hooks(lambda kept: kept.contiguous(), lambda kept: kept):
            found = slopes(ours, x, taps)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(one, other) for one, other in zip(found, right, strict=True))


@needs_kernels
@BOTH
def test_weights_that_do_not_fit_are_refused_as_torch_refuses_them(ours: Convolve, theirs: Convolve) -> None:
    x, taps = tensors(1, 4, 3, 3)
    for function in (ours, theirs):
        with pytest.raises(RuntimeError):
            function(x, taps[:4, :, :2])


@BOTH
def test_float64_and_what_watches_torch_get_torchs_operators(ours: Convolve, theirs: Convolve) -> None:
    x, taps = tensors(1, 2, 4, 4)
    assert torch.equal(ours(x.double(), taps.double()), theirs(x.double(), taps.double()))
    with FlopCounterMode(display=False) as counter:
        ours(x, taps)
    assert counter.get_total_flops() == 2 * 4 * 4 * 4 * 9  # two for each of 4 channels' 16 pixels' 9 taps
