"""Whether an ONNX file computes what the network does, at the size it was made with and at another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

HEIGHT_STEPS = 3
"""The second height is so many steps above the first."""
STEPS = (1, 2, 4, 8, 16, 32, 64)
"""What a network may ask image sides to be multiples of."""
TOLERANCE = 1e-4


class Unusable(Exception):  # noqa: N818  (what the file is)
    """A network cannot be converted in this way, or the file does not do what the network does."""


@final
@dataclass(frozen=True)
class Check:
    """How far ONNX Runtime's output is from PyTorch's for an input of this shape: largest absolute values."""

    shape: tuple[int, ...]
    difference: float
    magnitude: float


def checked(
    model: nn.Module, inputs: Sequence[Tensor], content: bytes, progress: Callable[[str], None]
) -> tuple[Check, ...]:
    """Compare ONNX Runtime with PyTorch for each of the inputs.

    Raises:
        Unusable: ONNX Runtime cannot run the file, or the outputs differ by more than `TOLERANCE` of the largest value.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what goes wrong is raised; there is no need to print it as well
    checks = []
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        for x in inputs:
            progress(f"checking with {times(x.shape)}")
            found = torch.from_numpy(session.run(None, {"input": x.cpu().numpy()})[0])
            checks.append(_compare(x.shape, found.double(), model(x).double().cpu()))
    except Unusable:
        raise
    except Exception as cause:  # ONNX Runtime has its own classes, made at run time
        raise Unusable(f"ONNX Runtime cannot run it: {str(cause).splitlines()[0].rstrip('.')}.") from cause
    return tuple(checks)


def _compare(shape: Sequence[int], found: Tensor, wanted: Tensor) -> Check:
    if found.shape != wanted.shape:
        raise Unusable(f"PyTorch returns {times(wanted.shape)}, ONNX Runtime {times(found.shape)}.")
    check = Check(tuple(shape), float((found - wanted).abs().max()), float(wanted.abs().max()))
    if not check.difference <= TOLERANCE * check.magnitude:  # asked this way, nan is too much as well
        raise Unusable(
            f"the outputs of PyTorch and ONNX Runtime for an input of {times(shape)} differ by {check.difference:.1e} "
            f"where the largest value is {check.magnitude:.3g}; at most {TOLERANCE:.0e} of it is allowed."
        )
    return check


def other_input(model: nn.Module, example: Tensor, axes: tuple[int, ...]) -> Tensor | None:
    """Return an input that differs in each of ``axes`` and that the network accepts; None where there is none."""
    if not axes:
        return None
    for step in STEPS if 2 in axes else (1,):
        # 3 and 5 are odd, so that these are multiples of no more than the step.
        larger = {0: 1, 2: HEIGHT_STEPS * step, 3: 5 * step}
        shape = [size + larger[axis] if axis in axes else size for axis, size in enumerate(example.shape)]
        if 2 in axes and shape[2] == shape[3]:
            shape[3] += 2 * step
        other = resized(example, shape)
        try:
            if isinstance(model(other), Tensor):
                return other
        except Exception:  # the network's own way to say no
            continue
    return None


def resized(example: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the example repeated, or cut off, along each axis."""
    for axis, size in enumerate(shape):
        example = example.index_select(axis, torch.arange(size, device=example.device) % example.shape[axis])
    return example


def varied(example: Tensor) -> Tensor:
    """Return the example, or noise where it is constant: two networks may well agree on zeros."""
    if not example.is_floating_point() or bool((example != example.flatten()[0]).any()):
        return example
    return torch.rand(example.shape, generator=torch.Generator().manual_seed(0)).to(example)


def times(shape: Sequence[int]) -> str:
    """Return a shape for people, e.g. ``"1x3x64x64"``."""
    return "x".join(map(str, shape)) or "one number"
