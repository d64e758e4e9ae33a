"""A structured pruner of `toy` alone: it cuts hidden units by magnitude, and knows the network by heart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from prunekit.amount import Density, MacDensity, Target
from prunekit.calibration import Calibration
from prunekit.errors import SelectionError
from prunekit.shape import Shape

ROWS = ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")


@dataclass(frozen=True)
class Channels:
    least: int = 1

    def start(self, model: nn.Module) -> Shape:
        return Shape.dense(model)

    def cut(self, model: nn.Module, now: Shape, amount: Target, data: Calibration) -> Shape:
        assert data.example is not None
        units = model.get_parameter("0.weight").detach().norm(dim=1).argsort(descending=True, stable=True).cpu()
        for count in range(len(units), self.least - 1, -1):
            found = now.then(_keeping(model, units[:count].sort().values, now))
            if _meets(found, now, amount):
                return found
        raise SelectionError(f"even {self.least} units are more than {amount}.")

    def load(self, state: Mapping[str, Tensor]) -> Shape:
        return Shape.load(state)


def _keeping(model: nn.Module, units: Tensor, now: Shape) -> Shape:
    held: dict[str, Any] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    indices = {name: {0: units} for name in ROWS if name in held} | {"4.weight": {1: units}}
    size = "1.num_features" if "1.running_mean" in held else "1.normalized_shape"
    return Shape(indices, dict.fromkeys(("0.out_features", size, "4.in_features"), len(units)), now.sizes)


def _meets(found: Shape, now: Shape, amount: Target) -> bool:
    if isinstance(amount, MacDensity):  # in this network they are as the weights are; nothing is computed besides
        assert (amount.cost[""], amount.other) == (0, 0)
        return amount.macs(found.per_tensor()) <= amount.limit
    if isinstance(amount, Density):
        return found.kept <= amount.value * found.prunable
    return found.kept <= (1 - amount.value) * now.kept
