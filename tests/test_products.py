"""Sparse kernels against float64: random geometries, densities from 0 to 1, awkward sizes and memory layouts."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunekit.native import kernels
from prunekit.sparse import products
from prunekit.sparse.modules import SparseConv2d, SparseLinear

pytestmark = [
    pytest.mark.skipif(kernels() is None, reason="the kernels were not built: no C compiler at install"),
    pytest.mark.usefixtures("every_copy"),
]
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


def sparse_(weight: Tensor, density: float) -> Tensor:
    with torch.no_grad():
        weight.mul_(torch.rand(weight.shape) < density)
    return weight


def error(found: Tensor, exact: Tensor) -> float:
    """Return the largest difference, as a share of the largest value."""
    assert found.shape == exact.shape and found.dtype == torch.float32
    return float(((found - exact).abs().max() / exact.abs().max().clamp_min(1)) if found.numel() else 0)


@given(
    kernel=pairs, stride=pairs, padding=st.tuples(st.integers(0, 3), st.integers(0, 3)), dilation=pairs,
    channels=st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 35)), height=st.integers(1, 40),
    width=st.one_of(st.integers(1, 40), st.integers(60, 140)), images=st.integers(1, 3), bias=st.booleans(),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]), last=st.booleans(), block=st.sampled_from([64, 1000, 2**16]),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_any_convolution(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    channels: tuple[int, int, int],
    height: int,
    width: int,
    images: int,
    bias: bool,
    density: float,
    last: bool,
    block: int,
    seed: int,
) -> None:
    groups, inputs, outputs = channels
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    assume(height + 2 * padding[0] >= reach[0] and width + 2 * padding[1] >= reach[1])
    torch.manual_seed(seed)
    layer = nn.Conv2d(groups * inputs, groups * outputs, kernel, stride, padding, dilation, groups=groups, bias=bias)
    sparse_(layer.weight, density)
    x = torch.randn(images, groups * inputs, height, width)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(products, "BLOCK", block)
        assert error(SparseConv2d(layer)(x), layer.double()(x.double())) < 1e-5


@given(
    tokens=st.lists(st.integers(1, 9), min_size=0, max_size=3), inputs=st.integers(1, 70), outputs=st.integers(1, 70),
    density=st.sampled_from([0.0, 0.1, 1.0]), bias=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_any_linear_layer(tokens: list[int], inputs: int, outputs: int, density: float, bias: bool, seed: int) -> None:
    torch.manual_seed(seed)
    layer = nn.Linear(inputs, outputs, bias=bias)
    sparse_(layer.weight, density)
    x = torch.randn(*tokens, inputs)
    with torch.no_grad():
        assert error(SparseLinear(layer)(x), layer.double()(x.double())) < 1e-5


def layouts() -> dict[str, Tensor]:
    whole = torch.randn(2, 12, 20, 30)
    return {
        "a slice of channels": whole[:, 2:8],
        "every second pixel": torch.randn(2, 6, 40, 60)[..., ::2, ::2],
        "transposed": torch.randn(2, 6, 30, 20).transpose(2, 3),
        "off by one float": torch.randn(2 * 6 * 20 * 30 + 1)[1:].view(2, 6, 20, 30),
        "expanded": torch.randn(1, 6, 20, 30).expand(2, -1, -1, -1),
        "channels last": torch.randn(2, 6, 20, 30).contiguous(memory_format=torch.channels_last),
    }


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("name", layouts())
def test_memory_layouts(name: str, kernel: int) -> None:
    torch.manual_seed(0)
    x = layouts()[name]
    layer = nn.Conv2d(6, 5, kernel, padding=kernel // 2)
    sparse_(layer.weight, 0.3)
    with torch.no_grad():
        found = SparseConv2d(layer)(x)
        last = name == "channels last"
        assert found.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        assert error(found, layer.double()(x.double())) < 1e-6


def test_infinity_and_nan_reach_what_reads_them_and_nothing_else() -> None:
    layer = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]]))
        y = SparseLinear(layer)(torch.tensor([[float("nan"), float("-inf"), 1.0]]))
    assert y[0, 0].isnan() and y[0, 1] == float("-inf") and y[0, 2] == 3


def test_denormals_stay_on() -> None:
    assert kernels() is not None
    assert float(torch.tensor(1e-40) * 1) > 0


@pytest.mark.parametrize(
    "x",
    [
        torch.rand(1, 4, 5, 5, dtype=torch.float64),
        torch.rand(4, 5, 5),
        torch.rand(0, 4, 5, 5),
        torch.rand(1, 4, 5, 5, requires_grad=True),
    ],
)
def test_what_the_kernels_do_not_take_goes_the_layers_own_way(x: Tensor) -> None:
    layer = nn.Conv2d(4, 2, 3).to(x.dtype)
    y = SparseConv2d(layer)(x)
    assert torch.equal(y, layer(x))
    assert y.requires_grad


@pytest.mark.parametrize("shape", [(1, 3, 5, 5), (1, 5, 5, 5), (2, 8, 5, 5)])
def test_a_convolution_of_too_few_or_many_channels_is_torchs_error(shape: tuple[int, ...]) -> None:
    layer = nn.Conv2d(4, 4, 3, groups=2)
    with torch.no_grad(), pytest.raises(RuntimeError, match="channels"):
        SparseConv2d(layer)(torch.rand(shape))


@pytest.mark.parametrize("shape", [(), (3,), (2, 5), (4, 3)])
def test_a_linear_layer_of_too_few_or_many_inputs_is_torchs_error(shape: tuple[int, ...]) -> None:
    with torch.no_grad(), pytest.raises(RuntimeError):
        SparseLinear(nn.Linear(4, 2))(torch.rand(shape))


def test_an_image_smaller_than_the_kernel_is_torchs_error() -> None:
    with torch.no_grad(), pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        SparseConv2d(nn.Conv2d(2, 2, 5))(torch.rand(1, 2, 3, 9))


def test_calls_from_several_threads() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3, padding=1)
    sparse_(layer.weight, 0.2)
    fast = SparseConv2d(layer)
    inputs = [torch.randn(1, 8, 10 + i % 3, 70) for i in range(12)]
    found: dict[int, Tensor] = {}

    def work(place: int) -> None:
        with torch.no_grad():
            found[place] = fast(inputs[place])

    workers = [threading.Thread(target=work, args=(place,)) for place in range(len(inputs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for place, x in enumerate(inputs):
        assert torch.allclose(found[place], F.conv2d(x, layer.weight, layer.bias, padding=1), atol=1e-5)
