"""``prunekit prune`` and ``prunekit sensitivity``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_export import TOY, call
from torch import Tensor, nn

import prunekit as pk
from prunekit.files import read_tensors


class Plain(nn.Module):
    """One grey channel in and out; weights 0.01, 0.02, ... in order."""

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2) if norm else nn.Identity()
        self.last = nn.Conv2d(2, 1, 1)
        with torch.no_grad():
            for weight in (self.first.weight, self.last.weight):
                weight.copy_(torch.arange(1.0, 1 + weight.numel()).reshape(weight.shape) / 100)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.norm(self.first(x)))
        return y


class Itself(nn.Module):
    """Twice the half of an image: the image."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 1, 1, bias=False)
        self.b = nn.Conv2d(1, 1, 1, bias=False)
        with torch.no_grad():
            self.a.weight.fill_(2)
            self.b.weight.fill_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.a(x))
        return y


PLAIN, NORM = "python:test_cli_prune:Plain", "{name: 'python:test_cli_prune:Plain', norm: true}"
ITSELF = "python:test_cli_prune:Itself"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save(Plain().state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prune") / "run"
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, "run", TOY, "task.steps=4", "--out", str(out), "--device", "cpu", "--quiet") == 0
    return out


def test_a_file_is_pruned_to_the_exact_count_and_written_as_a_ticket(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "t"
    assert call(monkeypatch, "prune", str(weights), "--network", PLAIN, "--density", "0.25", "-o", str(out)) == 0
    printed = capsys.readouterr().out
    assert "pruned by magnitude, everywhere: keeps 5 of 20 prunable weights (25.00%), 6 of all 21" in printed
    assert "multiply-adds for one input of 1x1x128x128: 328k before, 82k after (25.0% of all)" in printed
    assert "warning: nothing is left of last.weight; an allocation with min_keep" in printed
    assert "the same tensors stored densely take 0.1 kB" in printed and "all 3 tensors are identical" in printed
    ticket = pk.load(out, network=PLAIN)
    assert ticket.masks.per_tensor() == {"first.weight": (5, 18), "last.weight": (0, 2)}
    assert ticket.tensors["first.weight"].flatten().nonzero().flatten().tolist() == [13, 14, 15, 16, 17]
    assert ticket.about.input_shape == [1, 1, 128, 128]


def test_a_ticket_is_pruned_further_within_its_masks(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prune = ("prune", "--network", PLAIN)
    first, second, third = (str(tmp_path / name) for name in "abc")
    control = "{name: random, seed: 3}"
    assert call(monkeypatch, *prune, str(weights), "--density", "0.5", "--scorer", control, "-o", first) == 0
    assert call(monkeypatch, *prune, first, "--density", "0.2", "--allocation", "per_layer", "-o", second) == 0
    before, after = pk.load(first).masks, pk.load(second).masks
    assert before.kept == 10
    assert [counts[1] for counts in after.per_tensor().values()] == [18, 2]
    assert all(not (after[name] > before[name]).any() for name in before)
    assert call(monkeypatch, *prune, second, "--density", "0.5", "-o", third) == 2
    assert "--density 0.5 is more than the source has: it keeps 20.00% of its prunable weights" in (
        capsys.readouterr().err
    )
    assert not Path(third).exists()


def test_patterns_choose_and_what_was_cut_elsewhere_stays_cut(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prune = ("prune", "--network", PLAIN)
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    assert call(monkeypatch, *prune, str(weights), "--density", "0.5", "--exclude", "last*", "-o", first) == 0
    assert pk.load(first).masks.per_tensor() == {"first.weight": (9, 18)}
    more = (*prune, first, "--density", "0.5", "--include", "last.*", "-o", second)
    assert call(monkeypatch, *more, "--of", "macs") == 2
    assert "the source has cut 'first.weight', which is left out here" in capsys.readouterr().err
    assert call(monkeypatch, *more) == 0
    assert "pruned by magnitude, everywhere to 66.7% in 2 tensors: keeps 11 of 21" in capsys.readouterr().out
    assert pk.load(second).masks.per_tensor() == {"first.weight": (9, 18), "last.weight": (1, 2), "last.bias": (1, 1)}


@pytest.mark.parametrize(("of", "density", "kept"), [("all", "0.619047619", 12), ("macs", "0.5", 10)])
def test_densities_of_all_and_of_multiply_adds(
    of: str, density: str, kept: int, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("prune", str(weights), "--network", PLAIN, "--density", density, "--of", of, "-o", str(tmp_path / "t"))
    assert call(monkeypatch, *arguments) == 0
    assert pk.load(tmp_path / "t").masks.kept == kept  # 12 and the one bias are 13 of 21


def test_noise_gives_losses_and_a_psnr(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("prune", ITSELF, "--density", "0.5", "-o", str(tmp_path / "t"), "--calibrate", str(folder))
    assert call(monkeypatch, *arguments, "--noise", "25", "--scorer", "taylor") == 0
    printed = capsys.readouterr().out
    data = pk.folder_data(folder, pk.ImageCall(channels=1), noise=25)
    before = sum(loss.item() for loss in data.losses(Itself())) / 2
    after = (0.2**2 + 0.8**2) / 2  # nothing comes out any more
    assert f"mean squared error on the calibration data: {before:.4g} before, {after:.4g} after" in printed
    assert "PSNR there, mean of the images: 20." in printed and "7.96 dB after" in printed
    assert "2 images of" in printed and "made noisy (sigma 25)" in printed


def test_scorers_of_inputs_need_no_targets(
    weights: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("prune", str(weights), "--network", PLAIN, "--density", "0.5", "--calibrate", str(folder))
    for name in ("wanda", "synflow"):
        assert call(monkeypatch, *arguments, "--scorer", name, "-o", str(tmp_path / name)) == 0
        assert pk.load(tmp_path / name).masks.kept == 10
    assert "without targets" in capsys.readouterr().out


def test_batchnorms_statistics_are_re_estimated_in_the_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("prune", NORM, "--density", "0.1", "--scorer", "{name: random, seed: 0}")
    assert call(monkeypatch, *arguments, "-o", str(tmp_path / "a")) == 0
    assert "BatchNorm's statistics are the source's: --calibrate DIR re-estimates them" in capsys.readouterr().out
    assert call(monkeypatch, *arguments, "-o", str(tmp_path / "b"), "--calibrate", str(folder)) == 0
    assert "BatchNorm's statistics were re-estimated" in capsys.readouterr().out
    before, after = (pk.load(tmp_path / name, network=NORM) for name in "ab")
    assert before.tensors["norm.running_mean"].tolist() == [0, 0]
    model = after.model()
    inputs = list(pk.folder_data(folder, pk.ImageCall(channels=1)).inputs(model))
    means = torch.stack([model.first(x).mean(dim=(0, 2, 3)) for x in inputs]).mean(0)
    assert torch.allclose(after.tensors["norm.running_mean"], means)
    assert means.abs().sum() > 0


def test_a_run_brings_its_own_data(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "t"
    assert call(monkeypatch, "prune", str(run), "--density", "0.2", "--scorer", "snip", "-o", str(out)) == 0
    printed = capsys.readouterr().out
    assert "calibration: the first 8 training batches of the run's task" in printed
    assert "mean loss on the calibration data: " in printed and "PSNR" not in printed
    about = pk.load(out).about
    assert (about.measures, about.stage) == ([], None)
    cut = pk.Masks.load(read_tensors(run / "02-0.2500" / "done" / "cut.safetensors"))
    assert all(not (mask > cut[name]).any() for name, mask in pk.load(out).masks.items())
    assert call(monkeypatch, "sensitivity", str(run), "--densities", "0.1") == 0
    assert "rise of the loss where one tensor alone keeps so much" in capsys.readouterr().out


def test_sensitivity_prints_a_table_and_writes_its_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    files = ("--csv", str(tmp_path / "s.csv"), "--plot", str(tmp_path / "s.svg"))
    arguments = ("sensitivity", ITSELF, "--densities", "0.6,0.5", "--calibrate", str(folder), "--noise", "25")
    assert call(monkeypatch, *arguments, *files) == 0
    printed = capsys.readouterr().out
    table = [line.split() for line in printed.splitlines() if line.startswith(("tensor", "a.", "b."))]
    assert table[0] == ["tensor", "shape", "weights", "60%", "50%"]
    assert [row[:4] for row in table[1:]] == [
        ["a.weight", "1x1x1x1", "1", "0.00"],
        ["b.weight", "1x1x1x1", "1", "0.00"],
    ]
    assert all(float(row[4]) == pytest.approx(20.3 - 7.96, abs=0.3) for row in table[1:])
    assert "PSNR 20." in printed and "PSNR lost (dB) where one tensor alone keeps so much" in printed
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 5
    assert b"a.weight" in (tmp_path / "s.svg").read_bytes()
    assert call(monkeypatch, *arguments, "--csv", str(tmp_path / "s.csv")) == 2
    assert "exists already" in capsys.readouterr().err


def test_sensitivity_without_data_says_that_its_input_is_random(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "sensitivity", ITSELF, "--densities", "0.5", "--shape", "1x1x4x4") == 0
    printed = capsys.readouterr().out
    assert "measured on one random input of 1x1x4x4, as there is no data" in printed
    assert printed.count("100.00%") == 4  # both tensors; and kept of the prunable, and of all


@pytest.mark.parametrize(
    ("verb", "options", "message"),
    [
        ("prune", ("--density", "1.5"), "density must be above 0 and at most 1, not 1.5"),
        ("prune", ("--density", "0.5", "--of", "mac"), "--of mac is not possible: did you mean 'macs'?"),
        ("prune", ("--density", "0.5", "--of", "all", "--include", "last*"), "cannot keep 50.00% of all 21 parameters"),
        ("prune", ("--density", "0.5", "--scorer", "wnda"), "there is no scorer 'wnda': did you mean 'wanda'?"),
        ("prune", ("--density", "0.5", "--scorer", "random"), 'go as --scorer "{name: NAME, KEY: VALUE}"'),
        ("prune", ("--density", "0.5", "--scorer", "{name"), "--scorer {name: scorer.name is not to be found"),
        ("prune", ("--density", "0.5", "--scorer", "movement"), "looks at training, and nothing is trained here"),
        ("prune", ("--density", "0.5", "--scorer", "snip"), "--scorer snip looks at data: add --calibrate DIR"),
        ("prune", ("--density", "0.5", "--allocation", "erkk"), "did you mean 'erk'?"),
        (
            "prune",
            ("--density", "0.5", "--exclude", "frist*"),
            "exclude: 'frist*' matches no name; Known: first.weight",
        ),
        ("prune", ("--density", "0.5", "--exclude", "*"), "no parameter is left to prune"),
        ("prune", ("--density", "0.5", "--noise", "25"), "name their folder with --calibrate DIR"),
        ("prune", ("--density", "0.5", "--network", NORM), "does not fit this network: 5 missing: norm.weight"),
        ("prune", ("--density", "0.5", "--shape", "1x3x8x8"), "does not run on an input of shape (1, 3, 8, 8)"),
        ("sensitivity", ("--densities", "0.5,x"), "--densities must be numbers joined by commas"),
        ("sensitivity", ("--densities", "0.5,2"), "density must be above 0 and at most 1, not 2"),
        ("sensitivity", ("--plot", "s.pdf"), "--plot writes .png or .svg"),
        ("sensitivity", ("--scorer", "taylor"), "--scorer taylor looks at data: add --calibrate DIR"),
    ],
)
def test_mistakes_cost_two_and_write_nothing(
    verb: str,
    options: tuple[str, ...],
    message: str,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = ("-o", str(tmp_path / "t")) if verb == "prune" else ()
    assert call(monkeypatch, verb, str(weights), "--network", PLAIN, *out, *options) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "t").exists()


def test_images_without_targets_are_refused_where_losses_are_wanted(
    weights: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("prune", str(weights), "--network", PLAIN, "--density", "0.5", "-o", str(tmp_path / "t"))
    assert call(monkeypatch, *arguments, "--scorer", "fisher", "--calibrate", str(folder)) == 2
    assert "--scorer fisher looks at losses, and these images have no targets" in capsys.readouterr().err


@pytest.mark.slow
def test_networks_of_something_else_than_images(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    linear = "{name: 'python:torch.nn:Linear', in_features: 6, out_features: 2}"
    prune = ("prune", "linear", "--network", linear, "--density", "0.5", "-o", str(tmp_path / "t"))
    assert call(monkeypatch, *prune) == 2
    assert "Say what its inputs are like: --shape" in capsys.readouterr().err
    assert call(monkeypatch, *prune, "--shape", "1x6", "--calibrate", str(folder)) == 2
    assert "does not turn images into images of the same size" in capsys.readouterr().err
    assert call(monkeypatch, *prune, "--shape", "1x6") == 0
    assert pk.load(tmp_path / "t").masks.kept == 6


def test_what_is_there_is_not_overwritten(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = weights.read_bytes()
    assert call(monkeypatch, "prune", "nothing", "--density", "0.5", "-o", str(weights)) == 2
    assert "exists already and is left as it is" in capsys.readouterr().err
    assert weights.read_bytes() == before
