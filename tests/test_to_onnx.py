"""ONNX files: which axes stay free, what is checked, what is refused; each network is a few weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunekit.errors import CheckpointError, Failed, PluginError
from prunekit.sparse import to_onnx
from prunekit.sparse.onnx_check import Unusable
from prunekit.sparse.to_onnx import export_onnx

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


class Denoiser(nn.Module):
    """Two convolutions and a residual; like many restorers it wants sides that are multiples of 8."""

    def __init__(self, multiple: int = 8) -> None:
        super().__init__()
        self.multiple = multiple
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % self.multiple or x.shape[3] % self.multiple:
            raise ValueError("sides must be multiples")
        return x + self.body(x)


class Noisy(nn.Module):
    """Never twice the same."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, 0.5, training=True)


class Single(nn.Module):
    """Takes one image at a time."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) != 1:
            raise ValueError("one at a time")
        return x * 2


class Rows(nn.Module):
    """Walks over rows in Python, which a converter unrolls."""

    def forward(self, x: Tensor) -> Tensor:
        rows = [x[:, :, row] for row in range(x.shape[2])]
        return torch.stack(rows[::-1], 2)


def run(path: Path, x: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["output"], {"input": x.numpy()})[0])


def shapes(made: object) -> list[tuple[int, ...]]:
    return [check.shape for check in made.checks]


@pytest.mark.slow
def test_an_image_network_takes_any_size_that_it_accepts(tmp_path: Path) -> None:
    model, path, lines = Denoiser().train(), tmp_path / "new" / "net.onnx", []
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made = export_onnx(model, torch.rand(1, 3, 16, 16), path, progress=lines.append, metadata={"density": "10 %"})
    assert (made.dynamic, made.fixed, made.path) == (("batch", "height", "width"), (), path)
    assert shapes(made) == [(1, 3, 16, 16), (2, 3, 40, 56)]
    assert all(0 <= check.difference < 1e-5 < check.magnitude for check in made.checks)
    assert made.bytes == path.stat().st_size and made.seconds > 0
    assert model.training and all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    x = torch.rand(3, 3, 8, 24)
    torch.testing.assert_close(run(path, x), model.eval()(x).detach(), rtol=1e-5, atol=1e-5)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert made.opset == proto.opset_import[0].version >= 18
    sides = [dim.dim_param or dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    assert sides == ["batch", 3, "height", "width"]
    props = {prop.key: prop.value for prop in proto.metadata_props}
    assert props["density"] == "10 %" and props["torch"] == torch.__version__ and props["prunekit"]
    assert str(Path(__file__).parent).encode() not in path.read_bytes()  # traces of the source are left out
    assert lines[0] == "running the network in PyTorch" and lines[-1] == f"writing {path}"
    assert "checking with 2x3x40x56" in lines
    assert [file.name for file in path.parent.iterdir()] == ["net.onnx"]
    assert "any batch, height, width (height and width in steps of 8 from the example's), " in str(made)
    assert "2x3x40x56" in str(made)


@pytest.mark.parametrize(
    ("model", "shape", "dynamic", "fixed", "other", "tries"),
    [
        (nn.Linear(3, 2), (1, 3), ("batch",), (), (2, 3), 1),
        (nn.Sequential(nn.Flatten(), nn.Linear(27, 2)), (2, 3, 3, 3), ("batch",), ("height", "width"), (3, 3, 3, 3), 1),
        pytest.param(Single(), (1, 3, 4, 6), ("height", "width"), ("batch",), (1, 3, 7, 11), 1, marks=pytest.mark.slow),
        pytest.param(Rows(), (2, 3, 4, 4), ("batch",), ("height", "width"), (3, 3, 4, 4), 2, marks=pytest.mark.slow),
        pytest.param(
            nn.Conv2d(3, 2, 1), (1, 3, 6, 4), ("batch", "height", "width"), (), (2, 3, 9, 11), 1, marks=pytest.mark.slow
        ),
    ],
    ids=["vectors", "flattened", "single", "unrolled", "square-avoided"],
)
def test_what_cannot_be_free_stays_fixed_and_is_named(
    model: nn.Module,
    shape: tuple[int, ...],
    dynamic: tuple[str, ...],
    fixed: tuple[str, ...],
    other: tuple[int, ...],
    tries: int,
    tmp_path: Path,
) -> None:
    lines: list[str] = []
    made = export_onnx(model, torch.rand(shape), tmp_path / "net.onnx", progress=lines.append)
    assert sum(line.startswith("tracing") for line in lines) == tries
    assert ("PyTorch's converter left batch, width free" in lines) == (tries == 2)
    assert (made.dynamic, made.fixed, shapes(made)) == (dynamic, fixed, [shape, other])
    assert all(name in str(made) for name in (*dynamic, *fixed))
    x = torch.rand(other)
    torch.testing.assert_close(run(made.path, x), model(x).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_file_that_is_right_at_one_size_only_is_written_for_that_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = to_onnx.checked

    def wrong_elsewhere(model: nn.Module, inputs: list[Tensor], content: bytes, progress: Callable[[str], None]) -> Any:
        if inputs[-1].shape[2] != 4:
            raise Unusable("wrong there.")
        return honest(model, inputs, content, progress)

    monkeypatch.setattr(to_onnx, "checked", wrong_elsewhere)
    lines: list[str] = []
    made = export_onnx(nn.Conv2d(3, 2, 1), torch.rand(1, 3, 4, 4), tmp_path / "net.onnx", progress=lines.append)
    assert (made.dynamic, shapes(made)) == (("batch",), [(1, 3, 4, 4), (2, 3, 4, 4)])
    assert [line for line in lines if "wrong" in line] == [
        "with batch, height, width free: wrong there.",
        "with height, width free: wrong there.",
    ]


def test_a_constant_example_does_not_make_the_check_blind(tmp_path: Path) -> None:
    made = export_onnx(nn.Linear(3, 2, bias=False), torch.zeros(2, 3), tmp_path / "net.onnx")
    assert made.checks[0].magnitude > 0


@pytest.mark.slow
def test_a_file_that_computes_something_else_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"differ by .* where the largest value is .* No file was written"):
        export_onnx(Noisy(), torch.rand(4, 64) + 1, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    with pytest.raises(CheckpointError, match=r"holds 4\.30 GB and one ONNX file at most 2\.13 GB"):
        export_onnx(nn.Linear(2**15, 2**15, device="meta"), torch.rand(1, 2**15), path)
    with pytest.raises(CheckpointError, match="cannot take an input of 1x5"):
        export_onnx(nn.Linear(3, 2), torch.rand(1, 5), path)
    with pytest.raises(CheckpointError, match="returns a tuple"):
        export_onnx(nn.LSTM(3, 2), torch.rand(1, 3), path)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name))
    with pytest.raises(PluginError, match=r'need onnxscript: pip install "prunekit\[onnx\]"'):
        export_onnx(nn.Linear(3, 2), torch.rand(1, 3), path)
    assert list(tmp_path.iterdir()) == []
    path.write_text("mine")
    with pytest.raises(CheckpointError, match="exists already and is left as it is"):
        export_onnx(nn.Linear(3, 2), torch.rand(1, 3), path)
    assert path.read_text() == "mine"
