"""A network as one ONNX file for any batch and image size, checked against PyTorch before it is written."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from prunekit.errors import CheckpointError, Failed, PluginError
from prunekit.files import refuse_existing, write_atomic
from prunekit.measure import evaluating
from prunekit.sparse.onnx_check import HEIGHT_STEPS, Check, Unusable, checked, other_input, resized, times, varied

AXES = {0: "batch", 2: "height", 3: "width"}
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
LARGEST = 2**31 - 2**24
"""Bytes of weights that fit one file: protobuf ends at 2 GiB, and the graph needs some room."""


@final
@dataclass(frozen=True)
class Exported:
    """An ONNX file that was written and checked.

    Args:
        path: where it is.
        bytes: its size.
        opset: version of the ONNX operators that it uses.
        dynamic: axes of the input that may have any size the network accepts: of batch, height, width.
        fixed: those of them that must be as in the example.
        checks: at the example's size, and at one that differs in every dynamic axis.
        seconds: for everything.
    """

    path: Path
    bytes: int
    opset: int
    dynamic: tuple[str, ...]
    fixed: tuple[str, ...]
    checks: tuple[Check, ...]
    seconds: float

    @property
    def step(self) -> int:
        """By multiples of what height and width may differ from the example's; 1 where they are fixed."""
        if "height" not in self.dynamic:
            return 1
        first, second = (check.shape for check in self.checks)
        return (second[2] - first[2]) // HEIGHT_STEPS

    def __str__(self) -> str:
        free = f"any {', '.join(self.dynamic)}" if self.dynamic else "one input size"
        if self.step > 1:
            free += f" (height and width in steps of {self.step} from the example's)"
        held = f" ({', '.join(self.fixed)} only as in the example)" if self.fixed else ""
        found = "; ".join(
            f"{times(each.shape)}: {each.difference:.1e} where the largest value is {each.magnitude:.3g}"
            for each in self.checks
        )
        return (
            f"{self.path}: {self.bytes / 1e6:.2f} MB, opset {self.opset}, for {free}{held}, {self.seconds:.0f} s\n"
            f"largest difference from PyTorch, float32, ONNX Runtime on the CPU: {found}"
        )


def export_onnx(
    model: nn.Module,
    example: Tensor,
    path: Path,
    *,
    progress: Callable[[str], None] = lambda _: None,
    metadata: Mapping[str, str] | None = None,
) -> Exported:
    """Write a network to one self-contained ONNX file, input ``input`` and output ``output``.

    Batch is dynamic, and height and width where the example has four axes (B, C, H, W), as far as the network allows
    it. Before the file is written, ONNX Runtime computes what PyTorch does at two sizes.

    Args:
        model: takes one tensor and returns one; exported in eval mode, its modes come back.
        example: an input on the model's device; where it is constant, noise in [0, 1) is used for the comparison.
        path: must not exist.
        progress: gets a line as each stage begins; a large network takes minutes.
        metadata: texts to store in the file beside PruneKit's and PyTorch's versions.

    Raises:
        CheckpointError: the file exists, or the network is too large or does not take one tensor and return one.
        PluginError: a package is missing.
        Failed: PyTorch cannot convert this network, or the outputs differ by more than 1e-4 of the largest value. No
            file is left behind.

    Example:
        >>> import tempfile
        >>> made = export_onnx(nn.Linear(3, 2), torch.rand(4, 3), Path(tempfile.mkdtemp()) / "linear.onnx")
        >>> made.dynamic, [check.shape for check in made.checks]
        (('batch',), [(4, 3), (5, 3)])
    """
    began_s = time.perf_counter()
    refuse_existing(path)
    _require_packages()
    _require_room(model)
    progress("running the network in PyTorch")
    with evaluating(model):
        example = varied(example)
        _require_tensor(model, example)
        file, checks = _widest(model, example, {**_versions(), **(metadata or {})}, progress)
    progress(f"writing {path}")
    refuse_existing(path)
    write_atomic(path, lambda temporary: temporary.write_bytes(file.content))
    return Exported(
        path=path,
        bytes=len(file.content),
        opset=file.opset,
        dynamic=tuple(AXES[axis] for axis in file.axes),
        fixed=tuple(AXES[axis] for axis in _candidates(example)[0] if axis not in file.axes),
        checks=checks,
        seconds=time.perf_counter() - began_s,
    )


def _candidates(example: Tensor) -> list[tuple[int, ...]]:
    """Return which axes to try to leave free, the most first."""
    return [(0, 2, 3), (2, 3), (0,), ()] if example.dim() == 4 else [(0,), ()]


@final
@dataclass(frozen=True)
class _File:
    content: bytes
    opset: int
    axes: tuple[int, ...]


def _widest(
    model: nn.Module, example: Tensor, metadata: Mapping[str, str], progress: Callable[[str], None]
) -> tuple[_File, tuple[Check, ...]]:
    """Return the file with the most axes free that passes its checks."""
    possible = set(AXES)
    for axes in _candidates(example):
        if not possible.issuperset(axes):
            continue
        if axes:
            progress(f"looking for another {_named(axes)} that the network accepts")
        other = other_input(model, example, axes)
        if axes and other is None:
            progress(f"the network itself takes no other {_named(axes)} than the example's")
            continue
        try:
            file = _convert(model, example, axes, metadata, progress)
            possible -= set(axes) - set(file.axes)
            if file.axes == axes:
                inputs = [example] if other is None else [example, other]
                return file, checked(model, inputs, file.content, progress)
            progress(f"PyTorch's converter left {_named(file.axes)} free")
        except Unusable as cause:
            if not axes:
                raise Failed(f"{cause} No file was written.") from cause
            progress(f"with {_named(axes)} free: {cause}")
    raise AssertionError("the last candidate returns or raises")


def _convert(
    model: nn.Module,
    example: Tensor,
    axes: tuple[int, ...],
    metadata: Mapping[str, str],
    progress: Callable[[str], None],
) -> _File:
    """Return a file in which at most these axes are free."""
    # An axis of length 1 would be taken for a constant.
    traced = resized(example, [max(size, 2) if axis in axes else size for axis, size in enumerate(example.shape)])
    asked: Any = ({axis: torch.export.Dim.AUTO for axis in axes},) if axes else None
    try:
        with _quiet():
            progress(f"tracing with {_named(axes)} free")
            graph = torch.export.export(model, (traced,), dynamic_shapes=asked)
            progress("converting")
            program = torch.onnx.export(
                graph, (), dynamo=True, input_names=["input"], output_names=["output"], optimize=False, verbose=False
            )
            assert program is not None
            progress("simplifying")
            _simplify(program.model)
            # Notes on every node about where it came from: a third of a small file, with paths of this machine.
            for node in program.model.graph.all_nodes():
                node.metadata_props.clear()
                node.doc_string = None
            sides = [str(side) for side in program.model.graph.inputs[0].shape or ()]
            free = {axis: sides[axis] for axis in axes if not sides[axis].isdigit()}  # a symbol may turn out a number
            program.rename_axes({side: AXES[axis] for axis, side in free.items()})
            program.model.metadata_props.update(metadata)
            proto = program.model_proto
    except Exception as cause:  # whatever the converter stumbles over, people need one message
        first = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise Unusable(f"PyTorch cannot convert this network to ONNX: {first.rstrip('.')}.") from cause
    opset = next(each.version for each in proto.opset_import if each.domain == "")
    return _File(proto.SerializeToString(), opset, tuple(free))


def _simplify(graph: Any) -> None:
    """Compute what is constant and drop what nobody reads.

    PyTorch's own ``optimize`` also tries a rule whose time grows with the square of the graph, which takes longer than
    all the rest for a network of thousands of nodes; ONNX Runtime, when it loads the file, finds the same by itself.
    """
    from onnxscript import optimizer

    optimizer.inline(graph)
    optimizer.fold_constants(graph, onnx_shape_inference=True)
    optimizer.remove_unused_nodes(graph)


def _require_tensor(model: nn.Module, example: Tensor) -> None:
    try:
        output = model(example)
    except Exception as cause:  # whatever the network raises, people need one message
        raise CheckpointError(f"the network cannot take an input of {times(example.shape)}: {cause}") from cause
    if not isinstance(output, Tensor):
        raise CheckpointError(
            f"the network returns a {type(output).__name__}; to export it, wrap it in a module that returns one tensor."
        )


def _require_packages() -> None:
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise PluginError(f'ONNX files need {", ".join(missing)}: pip install "prunekit[onnx]"')


def _require_room(model: nn.Module) -> None:
    needed = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if needed > LARGEST:
        raise CheckpointError(
            f"the network holds {needed / 1e9:.2f} GB and one ONNX file at most {LARGEST / 1e9:.2f} GB: "
            "export it as a sparse file, or in a smaller floating-point type."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what PyTorch's converter says of its own parts; warnings raised by the network's code stay."""
    loggers = {name: logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")}
    levels = {name: logger.level for name, logger in loggers.items()}
    try:
        for logger in loggers.values():
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(torch|onnx|onnxscript|onnx_ir|copyreg)(\.|$)")
            yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])


def _versions() -> dict[str, str]:
    return {"prunekit": importlib.metadata.version("prunekit"), "torch": torch.__version__}


def _named(axes: Sequence[int]) -> str:
    return ", ".join(AXES[axis] for axis in axes) or "no axis"
