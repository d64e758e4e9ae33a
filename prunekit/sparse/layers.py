"""What layers with weights do to channels: dense and depthwise convolutions, linear layers, batch norm, PReLU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from prunekit.sparse.channels import Channels, Flow, Fold
from prunekit.trace import shape_of


def convolution(flow: Flow, node: Node, given: dict[str, Any]) -> Channels | None:
    """Dense and depthwise convolutions; what other groups share cannot shrink group by group."""
    x, weight, bias = given["input"], given["weight"], given["bias"]
    if not _stored(flow, weight, bias):
        return None
    axis = len(shape_of(x)) - len(shape_of(weight)) + 1
    padded = given["padding"] != "valid" and (given["padding"] == "same" or _any(given["padding"]))
    outputs, inputs = shape_of(weight)[:2]
    if given["groups"] == 1:
        _sizes(flow, weight, out_channels=0, in_channels=1)
        return _dense(flow, x, axis, weight, bias, padded=padded)
    if given["groups"] == outputs == shape_of(x)[axis] and inputs == 1:
        _sizes(flow, weight, out_channels=0, in_channels=0, groups=0)
        return _depthwise(flow, x, axis, weight, bias, padded=padded)
    return None


def transposed_convolution(flow: Flow, node: Node, given: dict[str, Any]) -> Channels | None:
    """A dense transposed convolution: its outputs see different taps, so that only zeros stay constant."""
    x, weight, bias = given["input"], given["weight"], given["bias"]
    if not _stored(flow, weight, bias) or given["groups"] != 1:
        return None
    _sizes(flow, weight, out_channels=1, in_channels=0)
    axis = len(shape_of(x)) - len(shape_of(weight)) + 1
    return _dense(flow, x, axis, weight, bias, padded=True, transposed=True)


def linear(flow: Flow, node: Node, given: dict[str, Any]) -> Channels | None:
    """A linear layer over the last axis."""
    x, weight, bias = given["input"], given["weight"], given["bias"]
    if not _stored(flow, weight, bias) or len(shape_of(weight)) != 2:
        return None
    _sizes(flow, weight, out_features=0, in_features=1)
    return _dense(flow, x, len(shape_of(x)) - 1, weight, bias, padded=False)


def batch_norm(flow: Flow, node: Node, given: dict[str, Any]) -> list[Channels | None] | None:
    """Batch norm by running statistics: a scale and a shift of each channel."""
    statistics = given["running_mean"], given["running_var"], given["weight"], given["bias"]
    if not _stored(flow, *statistics):
        return None
    x = flow.channels(given["input"], 1)
    parts = []
    for tensor, neutral in zip(statistics, (0.0, 1.0, 1.0, 0.0), strict=True):
        if tensor is None:
            parts.append(torch.full_like(x.constant, neutral))
            continue
        _sizes(flow, tensor, num_features=0)
        found = flow.channels(tensor, 0)
        flow.couple(x.slots, found.slots)
        parts.append(found.constant)
    mean, variance, scale, shift = parts
    constant = (x.constant - mean) / (variance + given["eps"]).sqrt() * scale + shift
    return [replace(x, constant=_finite(torch.where(scale == 0, shift, constant))), None, None]


def prelu(flow: Flow, node: Node, given: dict[str, Any]) -> Channels | None:
    """A slope for each channel, or one for all."""
    if len(shape_of(given["self"])) < 2 or not _stored(flow, given["weight"]):
        return None
    x, slope = flow.channels(given["self"], 1), flow.channels(given["weight"], 0)
    if len(slope.slots) == len(x.slots):
        _sizes(flow, given["weight"], num_parameters=0)
        flow.couple(x.slots, slope.slots)
    return replace(x, constant=_finite(torch.where(x.constant >= 0, x.constant, slope.constant * x.constant)))


def _dense(
    flow: Flow, x: Node, axis: int, weight: Node, bias: Node | None, *, padded: bool, transposed: bool = False
) -> Channels:
    """Every output channel reads the input channels at which its weights are not all zero.

    A constant input adds the same to every position of an output, and so could be added to the bias, but where zeros
    are padded around it.
    """
    name = flow.tensors[weight]
    flow.freeze(weight, but=(0, 1))
    rows, columns = flow.parameter(name, int(transposed)), flow.parameter(name, int(not transposed))
    inputs = flow.channels(x, axis)
    flow.couple(inputs.slots, columns)
    taps = flow.weights[name][..., None].flatten(2)
    taps = taps.transpose(0, 1) if transposed else taps
    reads = (taps != 0).any(2)
    known = (inputs.constant == 0) | (~inputs.constant.isnan() & torch.tensor(not padded))
    steady = inputs.constant.where(known, 0)
    amounts = taps.double().sum(2) * steady
    shift = _shift(flow, bias, rows)
    constant = (shift + amounts.sum(1)).where(~(reads & ~known).any(1), torch.nan)
    foldable = known & torch.tensor(bias is not None and flow.tensors[bias] in flow.foldable)
    flow.read(rows, inputs.slots, reads & ~(foldable | (steady == 0) & known))
    folded = foldable & (steady != 0)
    if bias is not None and folded.any():
        flow.folds.append(Fold(flow.tensors[bias], inputs.slots[folded], amounts[:, folded]))
    return Channels(axis, rows, _finite(constant))


def _depthwise(flow: Flow, x: Node, axis: int, weight: Node, bias: Node | None, *, padded: bool) -> Channels:
    """Every channel has a filter of its own, and goes or stays with it."""
    name = flow.tensors[weight]
    flow.freeze(weight, but=(0,))
    inputs, rows = flow.channels(x, axis), flow.parameter(name, 0)
    flow.couple(inputs.slots, rows)
    taps = flow.weights[name].flatten(1).double()
    constant = (inputs.constant * taps.sum(1)).where((inputs.constant == 0) | torch.tensor(not padded), torch.nan)
    constant = constant.where((taps != 0).any(1), 0)
    return replace(inputs, constant=_finite(constant + _shift(flow, bias, rows)))


def _shift(flow: Flow, bias: Node | None, rows: Tensor) -> Tensor:
    """Return the values of the bias, which goes or stays with the rows; 0 without one."""
    if bias is None:
        return torch.zeros(len(rows), dtype=torch.float64)
    flow.couple(rows, flow.parameter(flow.tensors[bias], 0))
    return flow.weights[flow.tensors[bias]].double()


def _sizes(flow: Flow, tensor: Node, **axes: int) -> None:
    for attribute, axis in axes.items():
        if flow.attributes.setdefault((flow.tensors[tensor], attribute), axis) != axis:
            flow.freeze(tensor)  # tied to a layer that has its channels on another axis


def _stored(flow: Flow, *tensors: Node | None) -> bool:
    """Whether these are parameters or buffers as they stand, none computed from others."""
    return all(tensor is None or tensor in flow.tensors for tensor in tensors)


def _any(padding: int | list[int]) -> bool:
    return bool(padding) if isinstance(padding, int) else any(padding)


def _finite(constant: Tensor) -> Tensor:
    return constant.where(constant.isfinite(), torch.nan)
