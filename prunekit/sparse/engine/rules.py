"""Rules: which operators of torch are operators on maps, whatever the layout of their tensors."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch
from torch.fx import Node

from prunekit.sparse.engine import attention, norms
from prunekit.sparse.engine.found import Found, Rule, aten, operands
from prunekit.sparse.engine.layout import LAYOUT
from prunekit.sparse.engine.maps import SPARSE_ENOUGH, Kind, Mode, density
from prunekit.sparse.engine.pointwise import activation, arithmetic, power
from prunekit.sparse.engine.views import View, whole

LARGEST = 15
"""Rows of a kernel at most: what lies beside the rows of a ring has room for half of it."""


def _convolution(found: Found, node: Node) -> View | None:
    """1x1, sparse ones and depthwise ones with an odd square kernel, stride 1 and zeros around the image."""
    x, weight, bias, stride, padding, dilation, transposed, _, groups = operands(node)
    view, weight_mkhw, bias_m = found.standard(x), found.constants.get(weight), found.constants.get(bias)
    if view is None or weight_mkhw is None or weight_mkhw.dim() != 4 or weight_mkhw.dtype != torch.float32:
        return None
    if transposed or set(stride) != {1} or set(dilation) != {1} or (bias is not None and bias_m is None):
        return None
    outputs, inputs, down, across = weight_mkhw.shape
    if down != across or down > LARGEST or down % 2 == 0 or set(padding) != {down // 2}:
        return None
    if groups == 1 and (down == 1 or density(weight_mkhw) <= SPARSE_ENOUGH):
        made = found.new(view, Kind.SPARSE, [view], outputs, inputs=inputs, weight=weight_mkhw, bias=bias_m)
    elif groups == view.channels == outputs:
        given = {"inputs": down, "weight": weight_mkhw, "bias": bias_m}
        made = found.new(view, Kind.DEPTHWISE, [view], outputs, mode=Mode.NONE, **given)
    else:
        return None
    return View(made.map, 0, whole(made.map.shape, outputs))


def _linear(found: Found, node: Node) -> View | None:
    """A linear layer whose tokens are pixels: a 1x1 convolution."""
    bias, x, weight = operands(node) if node.target is aten.addmm.default else (None, *operands(node))
    view, weight_km, bias_m = found.known(x), found.constants.get(weight), found.constants.get(bias)
    if view is None or weight_km is None or node.kwargs or not norms.over_channels(view, [-1]):
        return None
    inputs, outputs = weight_km.shape
    if bias is not None and (bias_m is None or bias_m.shape != (outputs,)):
        return None
    weight_mk11 = weight_km.t()[..., None, None]
    made = found.new(view, Kind.SPARSE, [view], outputs, inputs=inputs, weight=weight_mk11, bias=bias_m)
    return View(made.map, 0, (view.dims[0], whole(made.map.shape, outputs)[1]))


RULES: MappingProxyType[Any, Rule] = MappingProxyType(
    {
        **LAYOUT,
        aten.convolution.default: _convolution,
        aten.addmm.default: _linear,
        aten.mm.default: _linear,
        aten.native_layer_norm.default: norms.layer_norm,
        aten._native_batch_norm_legit_no_training.default: norms.batch_norm,
        aten.native_batch_norm.default: norms.batch_norm,
        aten.var.correction: norms.variance,
        aten.sqrt.default: norms.root,
        aten.rsqrt.default: norms.root,
        aten.sum.dim_IntList: attention.total,
        aten.mean.dim: attention.mean,
        aten.linalg_vector_norm.default: attention.total,
        aten.bmm.default: attention.product,
        aten.relu.default: activation(Mode.RELU),
        aten.gelu.default: activation(Mode.GELU),
        aten.pow.Tensor_Scalar: power,
        **dict.fromkeys((aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor), arithmetic),
    }
)
