"""Networks written down in a line, and a check of what compaction makes of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import prunekit as pk
from prunekit.sparse.compact import Compacted, compact

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
NONE = pk.Masks({})


class Net(nn.Module):
    """Named layers and a forward pass written as a function of them and the input."""

    def __init__(self, code: Callable[[Any, Tensor], Any], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.code = code
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.code(self, x)


def zero_(model: nn.Module, name: str, *where: Any) -> None:
    """Write zero to rows, columns or entries of a parameter."""
    with torch.no_grad():
        model.get_parameter(name)[where] = 0


def checked(model: nn.Module, x: Tensor = X, masks: pk.Masks = NONE) -> Compacted:
    """Compact, and compare independently of what compaction itself compares."""
    small = compact(model, x, masks)
    dense = copy.deepcopy(model).eval()
    masks.apply_(dense)
    other, limit = small.model, 1e-5
    if not small.biases:  # a folded bias is rounded to float32
        dense, other, x, limit = dense.double(), copy.deepcopy(small.model).double(), x.double(), 1e-12
    with torch.no_grad():
        for ours, theirs in zip(tree_leaves(other(x)), tree_leaves(dense(x)), strict=True):
            assert ours.shape == theirs.shape and (ours - theirs).abs().max() <= limit * theirs.abs().max()
    assert small.difference <= 1e-10
    return small


def shapes(small: Compacted) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what shrank."""
    named = {**dict(small.model.named_parameters()), **dict(small.model.named_buffers())}
    return {name: tuple(named[name].shape) for name in small.shape.indices}


def kept(small: Compacted, name: str, axis: int = 0) -> list[int]:
    return small.shape.indices[name][axis].tolist()
