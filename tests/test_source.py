"""What a source says of itself, and what its user says of it: networks, options, shapes, training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_export import call
from torch import nn

import prunekit as pk
from prunekit.errors import CheckpointError


class Sized(nn.Module):
    def __init__(self, *, width: int = 4, act: str = "relu") -> None:
        super().__init__()
        self.a = nn.Conv2d(1, width, 3, padding=1)
        self.act = getattr(torch, act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.act(self.a(x))
        return y


SIZED = "python:test_source:Sized"


def test_a_bare_name_keeps_the_options_that_the_file_has(tmp_path: Path) -> None:
    model = Sized(width=6, act="tanh")
    x = torch.rand(1, 1, 8, 8)
    pk.save(model, pk.Masks.dense(model), tmp_path / "t", network={"name": SIZED, "width": 6, "act": "tanh"}, example=x)
    assert torch.equal(pk.load(tmp_path / "t", network=SIZED).model()(x), model(x))
    other = pk.load(tmp_path / "t", network={"name": SIZED, "width": 6})
    assert torch.equal(other.model()(x), torch.relu(model.a(x)))
    with pytest.raises(CheckpointError, match="t: a ticket for .* does not fit this network: 2 of another shape"):
        pk.load(tmp_path / "t", network={"name": SIZED, "width": 5})


def test_a_file_is_not_saved_under_the_name_of_another_network(tmp_path: Path) -> None:
    model = Sized(width=6)
    with pytest.raises(CheckpointError, match="does not fit this network: 2 of another shape"):
        pk.save(model, pk.Masks.dense(model), tmp_path / "t", network=SIZED)
    assert not (tmp_path / "t").exists()


def test_inputs_of_another_shape_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(Sized().state_dict(), tmp_path / "net.pt")
    arguments = ("inspect", str(tmp_path / "net.pt"), "--network", SIZED)
    assert call(monkeypatch, *arguments) == 2
    assert "does not run on an input of shape (1, 3, 128, 128)" in capsys.readouterr().err
    assert call(monkeypatch, *arguments, "--shape", "1x1x10x10") == 0
    printed = capsys.readouterr().out
    assert "multiply-adds for one input of 1x1x10x10" in printed and "3,600 of 3,600" in printed


def test_plain_and_fresh_weights_are_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Sized()
    pk.prune(model, pk.Masks.dense(model), 0.25).apply_(model)
    torch.save(model.state_dict(), tmp_path / "net.pt")
    assert call(monkeypatch, "export", str(tmp_path / "net.pt"), "--network", SIZED, "-o", str(tmp_path / "a")) == 0
    printed = capsys.readouterr().out
    assert "only 9 (25.00%) of them are not zero: a plain file has no masks, so all count as kept" in printed
    assert call(monkeypatch, "export", SIZED, "-o", str(tmp_path / "b")) == 0
    assert "these weights are fresh (seed 0), not trained" in capsys.readouterr().out


def test_a_ticket_says_in_a_line_what_it_is(tmp_path: Path) -> None:
    model = Sized()
    masks = pk.prune(model, pk.Masks.dense(model), 0.25)
    masks.apply_(model)
    pk.save(model, masks, tmp_path / "t", network=SIZED)
    counts = "keeps 9 of 36 prunable weights (25.00%), 13 of all 40 parameters (32.50%)"
    assert repr(pk.load(tmp_path / "t")) == f"Ticket({SIZED}: {counts})"
