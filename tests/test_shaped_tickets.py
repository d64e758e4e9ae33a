"""Tickets of networks that lost channels: in runs, files and one's own loop, and what the verbs say of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from test_export import TOY, call
from torch import nn

import prunekit as pk
from prunekit.errors import CheckpointError
from prunekit.files import read_tensors, write_tensors
from prunekit.rewind import restore, snapshot
from prunekit.shape import Shape
from prunekit.sparse.before import before

PLACES = torch.tensor([1, 2, 5, 6, 9, 11, 12, 15])
HIDDEN = {name: {0: PLACES} for name in ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")}
ATTRIBUTES = {"0.out_features": 8, "1.num_features": 8, "4.in_features": 8}
TASK = {"name": "task:python:toy:toy"}


def toy() -> nn.Sequential:
    """The network of the task ``toy``: 6 -> 16 -> 3, with batch norm."""
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))


def half() -> Shape:
    """Eight of the sixteen hidden channels: 56 + 16 + 27 of 195 parameters."""
    return Shape({**HIDDEN, "4.weight": {1: PLACES}}, ATTRIBUTES, Shape.dense(toy()).sizes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which the last stage holds half the channels of the first one's network."""
    out = tmp_path_factory.mktemp("shaped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, "run", TOY, "task.steps=8", "--out", str(out), "--device", "cpu", "--quiet") == 0
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    recipe["prune"] = {"name": "python:toy_channels:Channels"}
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    dense = read_tensors(out / "00-1.0000" / "done" / "weights.safetensors")
    for stage, shape in (("00-1.0000", Shape.dense(toy())), ("02-0.2500", half())):
        for name, tensors in (("weights", shape.select(dense)), ("cut", shape.state_dict())):
            file = out / stage / "done" / f"{name}.safetensors"
            file.unlink()
            write_tensors(file, {name: tensor.contiguous() for name, tensor in tensors.items()})
    return out


@pytest.fixture
def file(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    assert call(monkeypatch, "export", str(run), "-o", str(tmp_path / "t")) == 0
    return tmp_path / "t"


def test_a_run_gives_the_smaller_network(run: Path) -> None:
    ticket, dense = pk.load(run), pk.load(run, stage="00-1.0000")
    assert ticket.density == "keeps 99 of 195 parameters (50.77%) by removing channels"
    assert dense.density == "keeps 195 of 195 parameters (100.00%)"
    about = ticket.about
    assert (about.parameters, about.parameters_before, about.compacted) == (99, 195, True)
    assert (about.attributes, about.input_shape, about.stage) == (ATTRIBUTES, [1, 6], "02-0.2500")
    assert not dense.about.compacted and not ticket.masks and not dense.masks
    wide, x = dense.model(), torch.randn(5, 6)
    half().apply_(wide)
    assert torch.equal(ticket.model()(x), wide(x))
    assert list(ticket.tensors)[:6] == list(Shape.dense(toy()).sizes)


def test_a_run_is_exported_and_read_back(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "export", str(run), "--compact", "-o", str(tmp_path / "t")) == 0
    printed = capsys.readouterr().out
    assert "stage 02-0.2500: keeps 99 of 195 parameters (50.77%) by removing channels" in printed
    assert "nothing is cut, so nothing can be removed" in printed and "all 9 tensors are identical" in printed
    with pytest.raises(CheckpointError, match="nothing was run"):
        pk.load(tmp_path / "t").model()
    ticket, x = pk.load(tmp_path / "t", network=TASK), torch.randn(5, 6)
    assert torch.equal(ticket.model()(x), pk.load(run).model()(x)) and ticket.density == pk.load(run).density
    assert call(monkeypatch, "export", str(run), "--format", "dense", "-o", str(tmp_path / "d")) == 2
    assert "channels were removed, and no other program" in capsys.readouterr().err


def test_inspect_has_the_dense_network_below_its_shares(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "inspect", str(file), "--network", "task:python:toy:toy") == 0
    printed = capsys.readouterr().out
    assert "kept, of the prunable parameters: 72 of 72 (100%)" in printed
    *_, head, parameters, size, macs = printed.strip().splitlines()
    assert head == "of the network before channels were removed:"
    assert parameters == "parameters: 99 of 195 (50.8%)"
    assert size == "bytes of all tensors: 468 of 916 (51.1%)"  # 16 statistics each and a count of 8 bytes
    assert macs == "multiply-adds: 72 of 144 (50.0%)"
    assert call(monkeypatch, "inspect", str(file), "--network", "task:python:toy:toy", "--json") == 0
    assert json.loads(capsys.readouterr().out)["before"] == {"parameters": 195, "bytes": 916, "macs": 144}


def test_eval_measures_the_smaller_network(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "eval", str(run), "--device", "cpu") == 0
    printed = capsys.readouterr().out
    assert "density 50.77%, 99 of 195 parameters since channels were removed" in printed and "mse" in printed
    assert call(monkeypatch, "eval", str(run), "--device", "cpu", "--stage", "00-1.0000") == 0
    assert "removed" not in capsys.readouterr().out


@pytest.mark.slow
def test_the_small_network_is_cut_further_by_masks(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "both"
    options = ("--network", "task:python:toy:toy", "--shape", "1x6")
    assert call(monkeypatch, "prune", str(file), *options, "--density", "0.5", "-o", str(out)) == 0
    ticket = pk.load(out, network=TASK)
    assert ticket.density == (
        "keeps 36 of 72 prunable weights (50.00%), 63 of all 99 parameters (63.64%); "
        "32.31% of the 195 before channels were removed"
    )
    assert ticket.density in capsys.readouterr().out
    assert ticket.model()[4].in_features == 8
    assert call(monkeypatch, "export", str(out), *options, "--compact", "-o", str(tmp_path / "c")) == 0
    again = pk.load(tmp_path / "c", network=TASK)
    assert again.about.parameters_before == 195 and again.about.attributes.keys() == ATTRIBUTES.keys()
    x = torch.randn(4, 6)
    assert torch.allclose(again.model()(x), ticket.model()(x), atol=1e-6)


def test_a_loops_own_model_is_saved_by_its_shape(tmp_path: Path) -> None:
    model, shape = toy(), half()
    with pytest.raises(CheckpointError, match=r"the model's '.*' has .* entries, and the shape keeps .*: call shape"):
        pk.save(model, shape, tmp_path / "t")
    shape.apply_(model)
    pk.save(model, shape, tmp_path / "t", network=TASK, example=torch.zeros(1, 6))
    ticket, x = pk.load(tmp_path / "t", network=TASK), torch.randn(3, 6)
    assert torch.equal(ticket.model()(x), model.eval()(x))
    assert ticket.density == "keeps 99 of 195 parameters (50.77%) by removing channels"
    found = before(ticket, [(1, 6), (2, 6)])
    assert found is not None and found.macs == {(1, 6): 144, (2, 6): 288}
    with pytest.raises(CheckpointError, match="the model's '0.weight' has 96 entries, and the shape keeps 0"):
        pk.save(toy(), Shape({}, {}, {}), tmp_path / "u")


def test_a_file_may_not_grow_a_network(file: Path) -> None:
    ticket = pk.load(file, network=TASK)
    grown = ticket.about.model_copy(update={"attributes": {"0.out_features": 17}})
    with pytest.raises(CheckpointError, match="must be a positive number no larger"):
        pk.Ticket(ticket.tensors, ticket.masks, grown, trusted=True).model()


def test_restore_takes_a_dense_snapshot_into_the_shape() -> None:
    model, shape = toy(), half()
    start = snapshot(model)
    with pytest.raises(CheckpointError, match=r"in the snapshot and .* in the model: call shape.apply_\(model\) first"):
        restore(model, start, shape)
    shape.apply_(model)
    weight = model[0].weight
    with torch.no_grad():
        weight.zero_()
    restore(model, start, shape, keep=["1.*"])
    assert model[0].weight is weight and torch.equal(weight, start["0.weight"][PLACES])
    assert torch.equal(model[4].weight, start["4.weight"][:, PLACES]) and torch.equal(model[4].bias, start["4.bias"])


def test_restore_refuses_a_snapshot_of_the_smaller_network() -> None:
    model, first = toy(), half()
    first.apply_(model)
    later = snapshot(model)
    fewer = Shape(
        {**{name: {0: PLACES[:3]} for name in HIDDEN}, "4.weight": {1: PLACES[:3]}}, ATTRIBUTES, first.sizes
    )  # 1, 2, 5: there are that many in the snapshot, and they are others
    fewer.apply_(model, since=first)
    with pytest.raises(CheckpointError, match=r"'0.weight' has shape \(8, 6\) in the snapshot and \(16, 6\) in the de"):
        restore(model, later, fewer)


@pytest.mark.slow
def test_bench_says_what_it_is_a_share_of(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "b.csv"
    options = ("--backend", "eager", "--threads", "1", "--runs", "1", "--csv", str(table))
    assert call(monkeypatch, "bench", str(run), *options) == 0
    printed = capsys.readouterr().out
    assert f"{run}: 99 parameters, 72 of them prunable" in printed
    assert "before channels were removed: 195 parameters, of which 50.77% are left; 916 B of tensors" in printed
    assert "input 1x6, 1 thread: 72 MAC with every weight, 50.00% of 144 MAC before channels were removed" in printed
    titles, row = (line.split(",") for line in table.read_text().splitlines())
    found = dict(zip(titles, row, strict=True))
    assert (found["parameters"], found["parameters_before"], found["macs_before"]) == ("99", "195", "144")


@pytest.mark.slow
def test_bench_cuts_the_small_network_further(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--backend", "eager", "--backend", "onnxruntime", "--backend", "prunekit", "--threads", "1")
    assert call(monkeypatch, "bench", str(run), *options, "--runs", "1", "--density", "0.5") == 0
    printed = capsys.readouterr().out
    assert "36 (50.00%)" in printed and "prunekit 50 %" in printed and "failed" not in printed


@pytest.mark.slow
def test_onnx_holds_the_small_network(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = pytest.importorskip("onnx")
    assert call(monkeypatch, "export", str(run), "--format", "onnx", "-o", str(tmp_path / "n.onnx")) == 0
    made = onnx.load(tmp_path / "n.onnx")
    assert [8, 6] in [list(each.dims) for each in made.graph.initializer]
    held = {each.key: each.value for each in made.metadata_props}
    assert held["density"] == "keeps 99 of 195 parameters (50.77%) by removing channels"
