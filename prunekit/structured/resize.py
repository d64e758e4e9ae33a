"""Resizing: from the units that stay to a shape, with the attributes of modules that count channels."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunekit.select import canonical
from prunekit.shape import Shape
from prunekit.sizes import size_at, tensors_of
from prunekit.structured.declare import Declared, counted, declarations, refuse_unknown_attribute
from prunekit.structured.find import Found
from prunekit.structured.units import Units

COUNTED = {
    "out_channels": ("weight", 0),
    "in_channels": ("weight", 1),
    "out_features": ("weight", 0),
    "in_features": ("weight", 1),
    "num_features": ("running_mean", 0),
    "num_parameters": ("weight", 0),
    "num_channels": ("weight", 0),
    "embedding_dim": ("weight", 1),
}
"""Attributes of torch's own layers -> the tensor and axis that they count."""


def resized(model: nn.Module, found: Found, units: Units, kept: NDArray[np.bool_], declared: Declared) -> Shape:
    """Return the shape of the network with the units that stay."""
    indices: dict[str, dict[int, Tensor]] = {}
    for (name, axis), ids in units.axes.items():
        if not kept[ids].all():
            indices.setdefault(name, {})[axis] = torch.from_numpy(np.flatnonzero(kept[ids]))
    lengths = {(name, axis): len(places) for name, axes in indices.items() for axis, places in axes.items()}
    return Shape(indices, _attributes(model, lengths, declared, found, units, kept), Shape.dense(model).sizes)


def _attributes(
    model: nn.Module,
    lengths: dict[tuple[str, int], int],
    declared: Declared,
    found: Found,
    units: Units,
    kept: NDArray[np.bool_],
) -> dict[str, int]:
    named = tensors_of(model)
    names = {id(tensor): name for name, tensor in named.items()}
    attributes: dict[str, int] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        sizes = _of_layer(names, module, lengths)
        attributes |= {_joined(path, attribute): value for attribute, value in sizes.items()}
    attributes |= _counted(model, found, units, kept)
    for path, module, channels in declarations(model, declared):
        for attribute, size in channels.sizes.items():
            (name, axis), divisor = counted(model, path, module, size)
            length = lengths.get((name, axis), named[name].shape[axis])
            attributes[refuse_unknown_attribute(model, path, attribute)] = length // divisor
    return attributes


def _counted(model: nn.Module, found: Found, units: Units, kept: NDArray[np.bool_]) -> dict[str, int]:
    """Return the attributes that the graph showed to count channels, such as a norm's shape."""
    stays = {0: True}
    for axis, ids in found.axes.items():
        stays |= dict(zip(ids.tolist(), kept[units.axes[axis]].tolist(), strict=True))
    modules, attributes = dict(model.named_modules(remove_duplicate=False)), {}
    for path, ids in found.sizes.items():
        owner, _, attribute = path.rpartition(".")
        left = sum(stays.get(each, True) for each in ids.tolist())
        if owner in modules and left < len(ids) == size_at(modules[owner], attribute):
            attributes[_joined(owner, attribute)] = left
    return attributes


def _joined(path: str, attribute: str) -> str:
    return canonical(f"{path}.{attribute}" if path else attribute)


def _of_layer(names: dict[int, str], module: nn.Module, lengths: dict[tuple[str, int], int]) -> dict[str, int]:
    """Return what changes of the attributes that torch's own layers have."""
    found: dict[str, int] = {}
    transposed, groups = getattr(module, "transposed", False) is True, size_at(module, "groups") or 1
    depthwise = groups > 1 and groups == size_at(module, "in_channels") == size_at(module, "out_channels")
    for attribute, (tensor, axis) in COUNTED.items():
        value, own = size_at(module, attribute), getattr(module, tensor, None)
        if not value or not isinstance(own, Tensor) or id(own) not in names:
            continue
        if depthwise or (transposed and own.dim() > 2):
            axis = 0 if depthwise else 1 - axis
        length = lengths.get((names[id(own)], axis))
        if length is not None:
            found[attribute] = length * (groups if not depthwise and attribute == "in_channels" else 1)
    if depthwise and "out_channels" in found:
        found["groups"] = found["out_channels"]
    return found
