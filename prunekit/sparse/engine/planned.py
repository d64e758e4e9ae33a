"""Planned: the forward pass of a whole network by plans, one for each input shape, where they are faster."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from prunekit.sparse.engine.build import GAIN, build
from prunekit.sparse.engine.plan import Plan
from prunekit.sparse.engine.tune import Memo, race

PLANS = 8
"""Input shapes whose plans are remembered."""
SEEN = 2
"""Calls with a shape before it gets a plan: planning takes seconds, and an image that comes once must not pay them."""
CLOSE = 1e-4
"""Largest difference of a plan's outputs, as a share of the largest output; a plan that differs more is not used."""


@final
class Planned:
    """Set on a network as its ``forward``: float32 on the CPU without gradients takes a plan, all else its own way.

    Args:
        model: a network in eval mode, whose weights do not change any more.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._plans: OrderedDict[tuple[Any, ...], Plan | None] = OrderedDict()
        self._seen: Counter[tuple[Any, ...]] = Counter()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Planned], tuple[nn.Module]]:
        return Planned, (self.model,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the network returns, to rounding."""
        if len(args) == 1 and not kwargs and takes(args[0]) and not torch.is_grad_enabled() and not self.model.training:
            plan = self._plan(args[0])
            if plan is not None:
                return plan(args[0])
        return self.own(*args, **kwargs)

    def own(self, *args: Any, **kwargs: Any) -> Any:
        """Run the network as its class does."""
        return type(self.model).forward(self.model, *args, **kwargs)

    def prepare(self, example: Tensor) -> bool:
        """Make a plan for inputs of this shape; return whether it is faster than the network's own way."""
        with self._lock:
            self._make(example)
        return self._plans.get(_key(example)) is not None

    def _plan(self, x: Tensor) -> Plan | None:
        key = _key(x)
        if key not in self._plans:
            with self._lock:
                self._seen[key] += 1
                if self._seen[key] >= SEEN:
                    self._make(x)
        return self._plans.get(key)  # another call may just have made room for its own

    def _make(self, example: Tensor) -> None:
        key = _key(example)
        if key not in self._plans:
            self._plans[key] = faster(self.model, self.own, example)
            del self._seen[key]
            while len(self._plans) > PLANS:
                self._plans.popitem(last=False)


def takes(x: Any) -> bool:
    """Return whether a plan can be made for such an input; tracers pass others than plain tensors."""
    plain = type(x) is Tensor and x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0
    return plain and not torch.is_autocast_enabled("cpu")


def _key(x: Tensor) -> tuple[Any, ...]:
    return (*x.shape, torch.get_num_threads())


def faster(model: nn.Module, own: Callable[[Tensor], Any], example: Tensor) -> Plan | None:
    """Return a plan that gives the same and takes less time than ``own``; None if there is none."""
    with torch.no_grad():
        try:
            plan = build(model, example, Memo())
            found = plan(example)
        except Exception:  # a network that no tracer takes, or that branches on values: it keeps its own way
            return None
        if not alike(found, own(example)):
            return None
        ours_s, own_s = race([partial(plan, example), partial(own, example)])
        return plan if ours_s < GAIN * own_s else None


def alike(found: Any, expected: Any) -> bool:
    """Return whether two outputs are nested in the same way and equal to rounding."""
    (ours, ours_nested), (theirs, theirs_nested) = tree_flatten(found), tree_flatten(expected)
    return ours_nested == theirs_nested and all(_close(a, b) for a, b in zip(ours, theirs, strict=True))


def _close(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return bool(a == b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if not b.is_floating_point() or not b.numel():
        return torch.equal(a, b)
    return bool((a - b).abs().max() <= CLOSE * b.abs().max().clamp_min(1e-30))
