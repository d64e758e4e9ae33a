"""``prunekit prune --structured``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_export import TOY, call
from torch import Tensor, nn

import prunekit as pk


class Four(nn.Module):
    """One grey channel, four between: of weights 0.1, 0.4, 0.3 and 0.2."""

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.last = nn.Conv2d(4, 1, 1)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([0.1, 0.4, 0.3, 0.2]).reshape(4, 1, 1, 1).expand(4, 1, 3, 3))
            self.last.weight.fill_(1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.norm(self.first(x)))
        return y


FOUR, NORM = "python:test_cli_channels:Four", "{name: 'python:test_cli_channels:Four', norm: true}"
CUT = ("prune", "--structured", "--network", FOUR)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save(Four().state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


def rows(printed: str) -> dict[str, list[str]]:
    """Return the table's rows of three figures."""
    titles = ("parameters  ", "bytes of all tensors", "multiply-adds, ", "milliseconds, eager, in turn")
    return {title.strip(): line.split()[-3:] for line in printed.splitlines() for title in titles if title in line}


def test_channels_are_cut_and_the_costs_compared(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "t"
    assert call(monkeypatch, *CUT, str(weights), "--density", "0.6", "-o", str(out)) == 0
    printed = capsys.readouterr().out
    assert "pruned by magnitude, global: keeps 21 of 41 parameters (51.22%) by removing channels" in printed
    found = rows(printed)
    assert found["parameters"] == ["41", "21", "51.2%"]
    assert "bytes of all tensors" in printed and "0.2 kB  0.1 kB  51.2%" in printed
    assert found["multiply-adds,"] == ["655k", "328k", "50.0%"]
    assert float(found["milliseconds, eager, in turn"][0]) > 0
    assert "the cut took" in printed and "MiB of memory" in printed and "all 3 tensors are identical" in printed
    ticket = pk.load(out, network=FOUR)
    assert torch.equal(ticket.tensors["first.weight"], Four().first.weight[[1, 2]])
    assert ticket.model()(torch.rand(2, 1, 5, 6)).shape == (2, 1, 5, 6)
    assert ticket.about.attributes == {"first.out_channels": 2, "last.in_channels": 2}


@pytest.mark.slow
def test_densities_stay_shares_of_the_dense_network(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    assert call(monkeypatch, *CUT, str(weights), "--density", "0.75", "--of", "macs", "-o", first) == 0
    assert call(monkeypatch, *CUT, first, "--density", "0.5", "--of", "macs", "-o", second) == 0
    assert "keeps 21 of 41 parameters" in capsys.readouterr().out  # two channels of four
    assert pk.load(second).about.parameters_before == 41
    for of, share in (
        ("macs", "75.00% of the dense network's multiply-adds"),
        ("all", "75.61% of the dense network's"),
    ):
        assert call(monkeypatch, *CUT, first, "--density", "0.8", "--of", of, "-o", str(tmp_path / "c")) == 2
        assert f"--density 0.8 is more than the source has: it keeps {share}" in capsys.readouterr().err


@pytest.mark.slow
def test_multiples_patterns_and_fewest(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = (*CUT, str(weights), "--density", "0.8", "-o")
    assert call(monkeypatch, *asked, str(tmp_path / "a"), "--multiple", "2", "--local") == 0
    assert len(pk.load(tmp_path / "a").tensors["first.weight"]) == 2
    assert call(monkeypatch, *asked, str(tmp_path / "b")) == 0
    assert len(pk.load(tmp_path / "b").tensors["first.weight"]) == 3
    assert call(monkeypatch, *asked, str(tmp_path / "c"), "--least", "4") == 2
    assert call(monkeypatch, *asked, str(tmp_path / "c"), "--exclude", "first.*") == 2
    assert not (tmp_path / "c").exists()


def test_masks_of_the_source_lose_the_same_channels(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    masked, out = str(tmp_path / "a"), str(tmp_path / "b")
    assert call(monkeypatch, "prune", "--network", FOUR, str(weights), "--density", "0.5", "-o", masked) == 0
    assert pk.load(masked).masks["first.weight"].sum((1, 2, 3)).tolist() == [0, 9, 7, 0]  # and the whole of last
    assert call(monkeypatch, *CUT, masked, "--density", "0.6", "-o", out) == 0
    assert "keeps 18 of 20 prunable weights (90.00%)" in capsys.readouterr().out
    assert pk.load(out).masks["first.weight"].sum((1, 2, 3)).tolist() == [9, 7]


def test_data_give_scores_statistics_and_a_psnr(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("prune", NORM, "--structured", "--density", "0.6", "--scorer", "taylor", "-o", str(tmp_path / "t"))
    assert call(monkeypatch, *asked) == 2
    assert "--scorer taylor looks at data: add --calibrate DIR" in capsys.readouterr().err
    assert call(monkeypatch, *asked, "--calibrate", str(folder), "--noise", "25") == 0
    printed = capsys.readouterr().out
    assert "2 images of" in printed and "PSNR there, mean of the images: " in printed
    assert "BatchNorm's statistics were re-estimated on the calibration inputs" in printed
    ticket = pk.load(tmp_path / "t", network=NORM)
    model = ticket.model()
    inputs = list(pk.folder_data(folder, pk.ImageCall(channels=1), noise=25).inputs(model))
    means = torch.stack([model.first(x).mean(dim=(0, 2, 3)) for x in inputs]).mean(0)
    assert len(means) < 4 and torch.allclose(ticket.tensors["norm.running_mean"], means)


@pytest.mark.slow
def test_a_run_brings_its_own_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = str(tmp_path / "run"), str(tmp_path / "t")
    assert call(monkeypatch, "run", TOY, "task.steps=4", "--out", run, "--device", "cpu", "--quiet") == 0
    asked = ("prune", run, "--structured", "--stage", "00-1.0000", "--scorer", "snip", "--density", "0.5", "-o", out)
    assert call(monkeypatch, *asked) == 0
    assert "keeps 87 of 195 parameters (44.62%) by removing channels" in capsys.readouterr().out  # 7 of 16 channels
    about = pk.load(out).about
    assert (about.measures, about.stage, about.attributes["0.out_features"]) == ([], None, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--structured", "--density", "1.5"), "density must be above 0 and at most 1, not 1.5"),
        (("--structured", "--of", "prunable"), "--of prunable is not possible with --structured"),
        (
            ("--structured", "--allocation", "erk"),
            "--structured cuts channels out of all tensors: leave --allocation out",
        ),
        (("--structured", "--include", "first*"), "leave --include out"),
        (("--structured", "--exclude", "frist*"), "'frist*' matches no name"),
        (("--structured", "--scorer", "movement"), "looks at training, and nothing is trained here"),
        (("--structured", "--density", "0.1"), "no structured cut leaves"),
        (("--local",), "without --structured single weights are cut, and no channels: leave --local out"),
        (("--multiple", "8"), "leave --multiple out"),
        (("--least", "8"), "leave --least out"),
    ],
)
def test_mistakes_cost_two_and_write_nothing(
    options: tuple[str, ...],
    message: str,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ("prune", str(weights), "--network", FOUR, "-o", str(tmp_path / "t"), "--density", "0.5", *options)
    assert call(monkeypatch, *asked) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "t").exists()


@pytest.mark.filterwarnings("always::prunekit.errors.PruneKitWarning")
def test_a_class_that_is_held_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("python:test_structured_fit:written", "--structured", "--density", "0.8", "--shape", "1x3x2")
    assert call(monkeypatch, "prune", *asked, "-o", str(tmp_path / "t")) == 0
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("prunekit: code with sizes that no parameter shows: test_structured_fit.Written stays whole")
