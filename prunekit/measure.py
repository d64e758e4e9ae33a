"""What a network costs: parameters by both denominators, multiply-adds, milliseconds, megabytes."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode without gradients, and back into its modes."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@final
@dataclass(frozen=True)
class Macs:
    """Multiply-adds of one forward pass: ``dense``, as any dense runtime does them, and those with a kept weight."""

    dense: int
    kept: int


class _Counter(TorchDispatchMode):
    """Adds up torch's own flop formulas; a product with a masked weight is scaled by that weight's density."""

    def __init__(self, density_by_pointer: Mapping[int, float]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.density_by_pointer = density_by_pointer
        self.dense = 0.0
        self.kept = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in flop_registry and func is not torch.ops.prim.device.default:
            with self:
                decomposed = func.decompose(*args, **kwargs)
            if decomposed is not NotImplemented:
                return decomposed
        out = func(*args, **kwargs)
        if packet in flop_registry:
            macs = flop_registry[packet](*args, **kwargs, out_val=out) / 2
            pointers = [arg.data_ptr() for arg in args if isinstance(arg, Tensor)]
            self.dense += macs
            self.kept += macs * min((self.density_by_pointer.get(pointer, 1.0) for pointer in pointers), default=1.0)
        return out


def count_macs(model: nn.Module, example: Any, masks: Mapping[str, Tensor] | None = None) -> Macs:
    """Count the multiply-adds of one forward pass.

    Args:
        model: run once, in eval mode, without gradients; its mode comes back.
        example: its input, with a batch axis.
        masks: parameter name -> bool tensor, True where kept.

    Example:
        >>> count_macs(nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.zeros(1, 3, 10, 10)).dense
        21600
    """
    weights = dict(model.named_parameters())
    density = {weights[name].data_ptr(): float(mask.float().mean()) for name, mask in (masks or {}).items()}
    with evaluating(model), _Counter(density) as counter:
        model(example)
    return Macs(round(counter.dense), round(counter.kept))


def latency_ms(model: nn.Module, example: Any, *, runs: int = 5) -> float:
    """Return the median milliseconds of a forward pass, as PyTorch runs it here and now (after one to warm up)."""
    times: list[float] = []
    with evaluating(model):
        for _ in range(runs + 1):
            began_s = time.perf_counter()
            model(example)
            if isinstance(example, Tensor) and example.is_cuda:
                torch.cuda.synchronize(example.device)
            times.append(1000 * (time.perf_counter() - began_s))
    return statistics.median(times[1:])


def peak_mib() -> float:
    """Return the most memory this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
