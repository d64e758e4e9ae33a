"""The engines that can run a network, and how each is asked to: built once for one input shape, then stepped.

Imports of engines stay inside functions: a process must not pay for the memory of an engine that it does not run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from prunekit.bench.cuts import at_density
from prunekit.bench.result import DENSE, SPARSE
from prunekit.errors import Failed, RecipeError, nearest

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

Step = Callable[[], Any]


@final
@dataclass(frozen=True)
class Job:
    """What one worker is for: the source at a density; ``onnx`` is the file that engines other than PyTorch read."""

    source: str
    stage: str | None
    network: str | Mapping[str, Any] | None
    backend: str
    shape: Sequence[int]
    density: float
    dtype: str
    threads: int
    onnx: str

    def noise(self) -> np.ndarray[Any, Any]:
        """Return the input: uniform in [0, 1), the same numbers in every process."""
        import numpy as np

        return np.random.default_rng(0).random(tuple(self.shape), dtype=np.float32)

    def torch_pair(self) -> tuple[nn.Module, Tensor]:
        """Return the network in eval mode and its input."""
        import torch

        from prunekit.sparse.source import load

        torch.set_num_threads(self.threads)
        ticket = load(self.source, stage=self.stage, network=self.network).masked()
        model = at_density(ticket, self.density).model()
        return model, torch.from_numpy(self.noise()).to(getattr(torch, self.dtype))


@final
@dataclass(frozen=True)
class Backend:
    """How to build it, and the packages it needs beyond PyTorch; with any, it reads the ONNX file."""

    build: Callable[[Job], Step]
    packages: tuple[str, ...] = ()

    @property
    def installed(self) -> bool:
        """Whether its packages are."""
        return all(importlib.util.find_spec(package) for package in self.packages)


def known_backends() -> Mapping[str, Backend]:
    """Return every backend by name, in the order of the table."""
    export = ("onnx", "onnxscript", "onnxruntime")  # what writing the ONNX file takes
    return {
        "eager": Backend(eager),
        "eager-heap": Backend(eager_heap),
        "compile": Backend(compiled),
        "onnxruntime": Backend(onnxruntime, export),
        "openvino": Backend(openvino, (*export, "openvino")),
        DENSE: Backend(prunekit),
        SPARSE: Backend(prunekit),
    }


def choose(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names to run, in the table's order, and those left out because they are not installed.

    Args:
        names: what was asked for; empty for everything that is installed.

    Raises:
        RecipeError: a name is unknown, or asked for and not installed.
    """
    known = known_backends()
    for name in names:
        if name not in known:
            raise RecipeError(f"--backend {name!r} is not known; {nearest(name, known)}")
        if not known[name].installed:
            extra = 'pip install "prunekit[onnx]"' + (" openvino" if name == "openvino" else "")
            raise RecipeError(f"--backend {name} needs packages that are not installed: {extra}")
    wanted = [name for name in known if name in names or not names]
    there = tuple(name for name in wanted if known[name].installed)
    return there, tuple(name for name in wanted if name not in there)


def eager(job: Job) -> Step:
    """Plain PyTorch."""
    import torch

    model, x = job.torch_pair()

    def step() -> Any:
        with torch.no_grad():
            return model(x)

    return step


def eager_heap(job: Job) -> Step:
    """Plain PyTorch in a process that keeps its heap."""
    from prunekit.environment import keep_heap

    if not keep_heap():
        raise Failed("the C library here cannot be told to keep its heap (Linux with glibc only)")
    return eager(job)


def compiled(job: Job) -> Step:
    """``torch.compile`` for this very shape."""
    import torch

    model, x = job.torch_pair()
    fast = torch.compile(model, dynamic=False)

    def step() -> Any:
        with torch.no_grad():
            return fast(x)

    return step


def onnxruntime(job: Job) -> Step:
    """ONNX Runtime on the CPU."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = job.threads
    # Its threads spin for tens of milliseconds after a pass, on cores that the next backend is being timed on.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(job.onnx, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: job.noise().astype(job.dtype)}
    return lambda: session.run(None, feed)


def openvino(job: Job) -> Step:
    """OpenVINO on the CPU, compiled for this very shape."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(job.onnx)
    model.reshape(list(job.shape))
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": job.threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(model, "CPU", options).create_infer_request()
    x = job.noise().astype(job.dtype)
    return lambda: request.infer([x], share_inputs=True)


def prunekit(job: Job) -> Step:
    """``prunekit.sparse.compile`` in a process that keeps its heap: zeros, if any, are not multiplied with."""
    import torch

    from prunekit.environment import keep_heap, trim_heap
    from prunekit.native import kernels, missing
    from prunekit.sparse.runtime import compile

    if kernels() is None:
        raise Failed(f"it has no compiled kernels: {missing()}")
    keep_heap()
    model, x = job.torch_pair()
    fast = compile(model, x)
    del model  # to run one network, one is held
    trim_heap()

    def step() -> Any:
        with torch.no_grad():
            return fast(x)

    return step


def export(job: Job) -> None:
    """Write the ONNX file that the engines other than PyTorch read."""
    from prunekit.sparse.to_onnx import export_onnx

    model, x = job.torch_pair()
    export_onnx(model, x, Path(job.onnx))
