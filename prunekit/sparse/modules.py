"""What layers do in place of their own forward pass: sparse kernels where they can, the layer's own way where not.

They are set on a layer as its ``forward``, so that the layer stays what it was to whoever reads its weight or its type.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import final

import torch
from torch import Tensor, nn

from prunekit.sparse.products import Convolution, Geometry, Product

PLANS = 16
"""Input shapes whose plans a convolution remembers."""


@final
class SparseLinear:
    """The forward pass of a linear layer: float32 on the CPU without gradients goes to the kernel, all else its way."""

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer  # nothing is read from it yet: a copy of the network makes us before it is whole
        self._product: Product | None = None

    def __reduce__(self) -> tuple[type[SparseLinear], tuple[nn.Linear]]:
        return SparseLinear, (self.layer,)

    def forget(self) -> None:
        """Give back the memory of what was made of the weights; the next call makes it again."""
        self._product = None

    def __call__(self, input: Tensor) -> Tensor:
        """Return what the layer returns, to rounding."""
        fits = input.dim() > 0 and input.shape[-1] == self.layer.weight.shape[1] and input.numel() > 0
        if not fits or not _plain(input, self.layer):
            return nn.Linear.forward(self.layer, input)
        if self._product is None:
            self._product = Product(self.layer.weight.detach(), _detached(self.layer.bias))
        return self._product(input.contiguous())


@final
class SparseConv2d:
    """The forward pass of a convolution: float32 on the CPU without gradients goes to the kernel, all else its way.

    Maps that lie channels last come back so; a 1x1 convolution then needs no rearranging.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        self.layer = layer
        self._plans: OrderedDict[tuple[int, ...], Convolution] = OrderedDict()
        self._product: Product | None = None

    def __reduce__(self) -> tuple[type[SparseConv2d], tuple[nn.Conv2d]]:
        return SparseConv2d, (self.layer,)

    def forget(self) -> None:
        """Give back the memory of what was made of the weights; the next call makes it again."""
        self._product = None
        self._plans.clear()

    @staticmethod
    def fits(layer: nn.Conv2d) -> bool:
        """Return whether the kernels know this kind of convolution."""
        kernel, dilation = _pair(layer.kernel_size), _pair(layer.dilation)
        even = layer.padding == "same" and any(d * (k - 1) % 2 for k, d in zip(kernel, dilation, strict=True))
        return layer.padding_mode == "zeros" and not even

    def __call__(self, input: Tensor) -> Tensor:
        """Return what the layer returns, to rounding, in the input's memory layout."""
        layer, x, geometry = self.layer, input, _geometry(self.layer)
        # The kernels trust what they are given: what the layer itself would refuse must not reach them.
        fits = x.dim() == 4 and x.numel() > 0 and x.shape[1] == layer.weight.shape[1] * layer.groups
        if not fits or min(geometry.out(*x.shape[2:])) < 1 or not _plain(x, layer):
            return nn.Conv2d.forward(layer, x)
        last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
        if last and geometry == Geometry():
            if self._product is None:
                self._product = Product(layer.weight.detach()[:, :, 0, 0], _detached(layer.bias))
            return self._product(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        y_nchw = self._plan(tuple(x.shape), geometry)(x.contiguous())
        return y_nchw.contiguous(memory_format=torch.channels_last) if last else y_nchw

    def _plan(self, shape: tuple[int, ...], geometry: Geometry) -> Convolution:
        plan = self._plans.get(shape)
        if plan is None:
            plan = Convolution(self.layer.weight.detach(), _detached(self.layer.bias), geometry, shape)
            self._plans[shape] = plan
            if len(self._plans) > PLANS:
                self._plans.popitem(last=False)
        return plan


def _geometry(layer: nn.Conv2d) -> Geometry:
    kernel, stride, dilation = (_pair(each) for each in (layer.kernel_size, layer.stride, layer.dilation))
    if layer.padding == "same":
        padding = dilation[0] * (kernel[0] - 1) // 2, dilation[1] * (kernel[1] - 1) // 2
    else:
        padding = (0, 0) if isinstance(layer.padding, str) else _pair(layer.padding)
    return Geometry(kernel, stride, padding, dilation, layer.groups)


def _plain(x: Tensor, layer: nn.Conv2d | nn.Linear) -> bool:
    """Return whether the kernels can take this input, and are wanted for it."""
    # Tracers pass other types than plain tensors, which have no memory to point at.
    known = type(x) is Tensor and x.dtype == layer.weight.dtype == torch.float32 and x.device.type == "cpu"
    return known and not (torch.is_grad_enabled() and (x.requires_grad or layer.weight.requires_grad))


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    return value[0], value[1]


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()
