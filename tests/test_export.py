"""``prunekit export`` and ``prunekit.load`` on runs, files and names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import prunekit as pk
from prunekit.cli import main
from prunekit.errors import CheckpointError, PruneKitError, RunError
from prunekit.files import read_json, read_tensors
from prunekit.sparse.export import export_sparse
from prunekit.sparse.ticket import About

TOY = str(Path(__file__).parent / "toy.yaml")


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["prunekit", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    return int(done.value.code or 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "run"
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, "run", TOY, "task.steps=8", "--out", str(out), "--device", "cpu", "--quiet") == 0
    return out


@pytest.fixture
def file(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    assert call(monkeypatch, "export", str(run), "-o", str(tmp_path / "t.safetensors")) == 0
    return tmp_path / "t.safetensors"


def test_a_run_is_exported_without_loss_and_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "t.safetensors"
    assert call(monkeypatch, "export", str(run), "-o", str(out)) == 0
    printed = capsys.readouterr().out
    assert "stage 02-0.2500: keeps 36 of 144 prunable weights (25.00%), 87 of all 195 parameters (44.62%)" in printed
    assert "read back: all 9 tensors are identical" in printed
    ticket, done = pk.load(out), run / "02-0.2500" / "done"
    weights = read_tensors(done / "weights.safetensors")
    assert weights.keys() == ticket.tensors.keys()
    assert all(torch.equal(tensor, ticket.tensors[name]) for name, tensor in weights.items())
    assert ticket.masks == pk.Masks.load(read_tensors(done / "cut.safetensors"))


def test_the_file_tells_where_it_comes_from(run: Path, file: Path) -> None:
    about = pk.load(file).about
    assert about.network is not None and about.network["name"] == "task:python:toy:toy"
    assert (about.stage, about.parameters, about.input_shape) == ("02-0.2500", 195, [1, 6])
    assert len(about.recipe or "") == 8
    measures = read_json(run / "02-0.2500" / "done" / "metrics.json")
    (mean,) = about.measures
    assert (mean.metric, mean.protocol, mean.n) == ("mse", "mean", 6)
    assert mean.value == pytest.approx(sum(measure["value"] for measure in measures) / 6)


def test_a_run_gives_its_model_without_asking_and_a_file_only_when_vouched_for(run: Path, file: Path) -> None:
    x = torch.randn(5, 6)
    model = pk.load(run).model()
    assert not model.training
    with pytest.raises(CheckpointError, match="nothing was run"):
        pk.load(file).model()
    vouched = pk.load(file, network={"name": "task:python:toy:toy"}).model()
    assert torch.equal(model(x), vouched(x))


def test_an_earlier_stage(run: Path) -> None:
    assert pk.load(run, stage="00-1.0000").masks.density == 1
    with pytest.raises(RunError, match="no finished stage '07'; finished: 00-1.0000, 01-0.5000, 02-0.2500"):
        pk.load(run, stage="07")


def test_dense_is_what_other_programs_load(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "d.safetensors"
    assert call(monkeypatch, "export", str(run), "--format", "dense", "-o", str(out)) == 0
    model = pk.load(run).model()
    other = pk.load(run, stage="00-1.0000").model()
    other.load_state_dict(load_file(out))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_half_precision_prints_its_error(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "h.safetensors"
    assert call(monkeypatch, "export", str(run), "--dtype", "bfloat16", "-o", str(out)) == 0
    printed = capsys.readouterr().out
    assert "bfloat16 changes a value by at most" in printed and "the output on one random input by at most" in printed
    before, after = pk.load(run), pk.load(out)
    error = max(float((before.tensors[n] - t).abs().max()) for n, t in after.tensors.items() if t.is_floating_point())
    assert f"at most {error:.2e}" in printed
    assert 0 < error < 0.05


def test_weights_of_other_programs_and_bare_names(tmp_path: Path) -> None:
    spec = {"name": "python:torch.nn:Linear", "in_features": 8, "out_features": 2}
    weights = nn.Linear(8, 2)
    torch.save(weights.state_dict(), tmp_path / "net.pt")
    ticket = pk.load(tmp_path / "net.pt", network=spec)
    assert ticket.masks.density == 1
    assert torch.equal(ticket.model().weight, weights.weight)
    fresh = pk.load("timm:resnet10t")
    assert (fresh.about.parameters, fresh.input_shape) == (5_435_488, (1, 3, 176, 176))
    assert torch.equal(pk.load("timm:resnet10t").tensors["conv1.0.weight"], fresh.tensors["conv1.0.weight"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("RUN", "-o", "FILE"), "exists already and is left as it is"),
        (("RUN", "--format", "sprase", "-o", "OUT"), "did you mean 'sparse'?"),
        (("RUN", "--dtype", "float8", "-o", "OUT"), "--dtype float8 is not possible"),
        (("RUN", "--format", "onnx", "--dtype", "float16", "-o", "a.onnx"), "leave --dtype out"),
        (("RUN", "-o", "a.onnx"), "ONNX files, and only they, end in .onnx"),
        (("RUN", "--format", "dense", "--compact", "-o", "OUT"), "leave --compact out"),
        (("FILE", "--network", "timm:resnet10t", "-o", "OUT"), "a ticket for timm:resnet10t does not fit this network"),
        (("RUN", "--stage", "09", "-o", "OUT"), "no finished stage '09'"),
        (("FILE", "--stage", "01", "-o", "OUT"), "no run directory, so it has no stage"),
        (("nowhere/run", "-o", "OUT"), "nowhere/run: there is no such file or run directory"),
        (("t.safetensors", "-o", "OUT"), "t.safetensors: there is no such file or run directory"),
        (("promptir_tyni", "-o", "OUT"), "no file and no run directory, so it was taken for a network"),
        (("HERE", "-o", "OUT"), "recipe.yaml is missing or damaged"),
        (("RUN", "-o", "nowhere/deep/t"), "nowhere"),
    ],
)
def test_mistakes(
    run: Path,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    places = {"RUN": run, "FILE": file, "OUT": tmp_path / "out", "HERE": tmp_path / "here"}
    code = call(monkeypatch, "export", *(str(places.get(word, word)) for word in arguments))
    if message == "nowhere":  # folders on the way are made
        assert code == 0 and (tmp_path / "here" / "nowhere" / "deep" / "t").exists()
        return
    error = capsys.readouterr().err
    assert code == 2 and message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_written_file_is_compared_with_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = pk.Ticket({"w": torch.ones(4)}, pk.Masks({"w": torch.ones(4, dtype=torch.bool)}), About())
    other = pk.Ticket({"v": torch.ones(4)}, pk.Masks({"v": torch.ones(4, dtype=torch.bool)}), About())
    monkeypatch.setattr("prunekit.sparse.export.read_ticket", lambda path: other)
    with pytest.raises(PruneKitError, match="does not hold what was written to it"):
        export_sparse(ticket, tmp_path / "t")


class Chain(nn.Module):
    """Two convolutions, a bias between them, and a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 6, 3, padding=1)
        self.outer = nn.Conv2d(6, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.outer(torch.relu(self.inner(x)))
        return y


CHAIN = "python:test_export:Chain"


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Chain, Path]:
    """Return a network of which inner channels 1, 2 and 4 are dead (4 is a constant that goes on), and its file."""
    torch.manual_seed(0)
    model = Chain()
    masks = pk.Masks.dense(model)
    masks["inner.weight"][[1, 4]] = False
    masks["outer.weight"][:, [1, 2]] = False
    masks.apply_(model)
    pk.save(model, masks, tmp_path / "chain", network=CHAIN, example=torch.rand(1, 3, 8, 8))
    return model, tmp_path / "chain"


def test_a_compacted_file_is_smaller_and_computes_the_same(
    chain: tuple[Chain, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, file = chain
    small = file.with_name("small")
    assert call(monkeypatch, "export", str(file), "--network", CHAIN, "--compact", "-o", str(small)) == 0
    printed = capsys.readouterr().out
    assert "compact: 3 channels can never influence the output and are gone, 189 values became 96" in printed
    ticket = pk.load(small, network=CHAIN)
    assert ticket.tensors["inner.weight"].shape == (3, 3, 3, 3)
    assert ticket.masks.density == 1
    x = torch.rand(2, 3, 5, 7)
    assert torch.allclose(ticket.model()(x), model(x), atol=1e-6)
    again = file.with_name("again")
    assert call(monkeypatch, "export", str(small), "--network", CHAIN, "--compact", "-o", str(again)) == 0
    assert "nothing is cut, so nothing can be removed" in capsys.readouterr().out


def test_a_compacted_file_cannot_make_layers_larger(chain: tuple[Chain, Path]) -> None:
    _, file = chain
    ticket = pk.load(file, network=CHAIN)
    grown = ticket.about.model_copy(update={"compacted": True, "attributes": {"inner.out_channels": 7}})
    with pytest.raises(CheckpointError, match=r"'inner.out_channels' to 7: it must be a positive number"):
        pk.Ticket(ticket.tensors, ticket.masks, grown, trusted=True).model()


@pytest.mark.slow
def test_onnx_prints_what_it_does_and_how_exact_it_is(
    chain: tuple[Chain, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    _, file = chain
    out = file.with_name("chain.onnx")
    assert call(monkeypatch, "export", str(file), "--network", CHAIN, "--format", "onnx", "-o", str(out)) == 0
    printed = capsys.readouterr().out
    assert "converting" in printed
    assert "for any batch, height, width" in printed
    assert "largest difference from PyTorch, float32, ONNX Runtime on the CPU: 1x3x8x8:" in printed
    assert out.stat().st_size < 10_000


def test_inspect_shows_a_file_and_refuses_one_without_a_network(
    chain: tuple[Chain, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, file = chain
    assert call(monkeypatch, "inspect", str(file), "--network", CHAIN) == 0
    printed = capsys.readouterr().out
    assert "kept, of all parameters: 129 of 189 (68.3%)" in printed
    pk.save(nn.Linear(2, 2), pk.Masks({}), file.with_name("bare"))
    assert call(monkeypatch, "inspect", str(file.with_name("bare"))) == 2
    assert "does not say which network it is of: name it (--network NAME" in capsys.readouterr().err
