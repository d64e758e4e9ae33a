"""What a network costs: parameters by both denominators, multiply-adds, milliseconds, megabytes."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prunekit.select import parameters


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
    """Adds up torch's own flop formulas, each product under the parameter that it multiplies by."""

    def __init__(self, named: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        from torch.utils.flop_counter import flop_registry  # only where it is wanted: it loads Triton, 80 MB

        self._flops = flop_registry
        self.named = named
        self.owners = {each.data_ptr(): name for name, each in named.items() if each.numel()}
        self.macs: dict[str, int] = {"": 0}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in self._flops and func is not torch.ops.prim.device.default:
            with self:
                decomposed = func.decompose(*args, **kwargs)
            if decomposed is not NotImplemented:
                return decomposed
        out = func(*args, **kwargs)
        read = self._read(args, kwargs)
        for name in read:
            self.macs.setdefault(name, 0)
        if packet in self._flops:
            # A product may come with a bias, which has one axis and fewer entries than the weight.
            owner = max(read, key=lambda name: (self.named[name].dim() > 1, self.named[name].numel()), default="")
            self.macs[owner] += self._flops[packet](*args, **kwargs, out_val=out) // 2
        return out

    def _read(self, args: Any, kwargs: Any) -> list[str]:
        """Return the parameters among the arguments: a whole one begins where it does, a part shares its memory."""
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor) and each.numel()]
        owners = [self.owners.get(each.data_ptr()) or self.owners.get(_memory(each)) for each in tensors]
        return [owner for owner in owners if owner is not None]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0


@contextmanager
def _unfused() -> Iterator[None]:
    """Let attention run as the products that it consists of; torch counts nothing of its fused kernels on a CPU."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def macs_per_tensor(model: nn.Module, example: Any, masks: Mapping[str, Tensor] | None = None) -> dict[str, Macs]:
    """Count the multiply-adds of one forward pass by the parameter that they multiply by.

    Args:
        model: run once, in eval mode, without gradients; its mode comes back.
        example: its input, with a batch axis.
        masks: parameter name -> bool tensor, True where kept.

    Returns:
        Canonical name -> multiply-adds, for every parameter that the pass reads (0 for a bias or a norm's scale), in
        model order; last, under the empty name, those of no parameter: products of activations, or of weights that are
        computed on the way. A parameter that is not here was never read. The sum is what `count_macs` returns.

    Example:
        >>> macs_per_tensor(nn.Linear(3, 2), torch.zeros(5, 3))
        {'weight': Macs(dense=30, kept=30), 'bias': Macs(dense=0, kept=0), '': Macs(dense=0, kept=0)}
    """
    named = parameters(model)
    with evaluating(model), _unfused(), _Counter(named) as counter:
        model(example)
    kept = {name: (int(torch.count_nonzero(mask)), mask.numel()) for name, mask in (masks or {}).items()}
    shares = {name: kept.get(name, (1, 1)) for name in (*named, "") if name in counter.macs}
    return {
        name: Macs(dense := counter.macs[name], round(dense * part / whole)) for name, (part, whole) in shares.items()
    }


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
    counts = macs_per_tensor(model, example, masks).values()
    return Macs(sum(each.dense for each in counts), sum(each.kept for each in counts))


def latency_ms(model: nn.Module, example: Any, *, runs: int = 5) -> float:
    """Return the median milliseconds of a forward pass, as PyTorch runs it here and now (after one to warm up)."""
    return latencies_ms([model], example, runs=runs)[0]


def latencies_ms(models: Sequence[nn.Module], example: Any, *, runs: int = 5) -> tuple[float, ...]:
    """Return each model's median milliseconds of a forward pass; they take turns, so that they meet the same machine.

    Args:
        models: run in eval mode, without gradients; their modes come back.
        example: an input that all of them take.
        runs: passes of each that count, after one to warm up.
    """
    times: list[list[float]] = [[] for _ in models]
    for _ in range(runs + 1):
        for model, own in zip(models, times, strict=True):
            with evaluating(model):
                began_s = time.perf_counter()
                model(example)
                if isinstance(example, Tensor) and example.is_cuda:
                    torch.cuda.synchronize(example.device)
                own.append(1000 * (time.perf_counter() - began_s))
    return tuple(statistics.median(own[1:]) for own in times)


def peak_mib() -> float:
    """Return the most memory this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
