from __future__ import annotations

import importlib
import runpy
import tomllib
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

import pytest

from prunekit.cli import main
from prunekit.files import read_json

EXAMPLES = Path(__file__).parents[1] / "examples"
OWN_PLUGIN = EXAMPLES / "own_plugin"
SLOW = {"other_restorers.py", "timm_classifier.py"}


@cache
def printed(name: str) -> str:
    """Return what an example prints."""
    with redirect_stdout(StringIO()) as output:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return output.getvalue()


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["prunekit", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    assert not done.value.code


@pytest.mark.filterwarnings("ignore:'saved_variables' is deprecated:DeprecationWarning")  # of NAFNet's own code
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(path.name, marks=[pytest.mark.slow] if path.name in SLOW else [])
        for path in sorted(EXAMPLES.glob("*.py"))
    ],
)
def test_example_runs(name: str) -> None:
    assert "prunable" in printed(name)


def test_own_loop_reaches_its_density() -> None:
    lines = printed("own_loop.py").splitlines()
    assert len(lines) == 6
    assert "kept  2,458 of 24,576 prunable (10.00%)" in lines[-1]


def test_structured_gets_smaller_and_still_learns() -> None:
    lines = printed("structured.py").splitlines()
    kept = [int(line.split()[1].replace(",", "")) for line in lines]
    losses = [float(line.rpartition(" ")[2]) for line in lines]
    assert kept[0] == 5689 and all(after <= 5689 * 0.1 ** (k / 3) for k, after in enumerate(kept)) and kept[-1] > 400
    assert all(loss < 0.1 for loss in losses)  # the noise alone is 0.25


def test_other_restorers_all_end_at_a_tenth(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example = importlib.import_module("other_restorers")
    monkeypatch.setattr(example, "STEPS", 0)
    example.main()
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.endswith("the noisy images have 20.17")
    assert [row.split()[0] for row in rows] == ["spandrel:NAFNet", "spandrel:SwinIR", "spandrel:DnCNN"]
    assert "986 of  9,864 prunable" in rows[0]
    for row in rows:
        assert [cell.split()[0] for cell in row.split("|")[1:]] == ["100%", "46%", "22%", "10%"]


@pytest.mark.slow
def test_a_ticket_of_a_timm_classifier_beats_random_weights() -> None:
    *_, ticket, control = printed("timm_classifier.py").splitlines()
    for line in (ticket, control):
        assert "37,157 of 371,568 prunable weights (10.00%)" in line
    accuracies = [float(line.partition("accuracy ")[2].partition("%")[0]) for line in (ticket, control)]
    assert accuracies[0] > 90 and accuracies[0] > accuracies[1] + 10


def test_own_schedule_falls_as_it_says() -> None:
    own = runpy.run_path(str(EXAMPLES / "own_schedule.py"))
    stairs, warm = own["staircase"](density=0.2), own["warm_start"](density=0.25, wait=0.5)
    assert [stairs(k / 8) for k in range(9)] == pytest.approx([1, 1, 0.8, 0.8, 0.6, 0.6, 0.4, 0.4, 0.2])
    assert [warm(k / 4) for k in range(5)] == pytest.approx([1, 1, 1, 0.5, 0.25])


def test_own_schedule_in_a_recipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    schedule = "strategy.schedule={name: 'python:own_schedule:staircase', density: 0.1, stairs: 3}"
    call(monkeypatch, "plan", str(Path(__file__).parent / "toy.yaml"), "strategy.rounds=3", schedule)
    shown = capsys.readouterr().out
    assert all(stage in shown for stage in ("00-1.0000", "01-0.7000", "02-0.4000", "03-0.1000"))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the plugin on the path with the metadata that pip would have made of its pyproject.toml."""
    project = tomllib.loads((OWN_PLUGIN / "pyproject.toml").read_text())["project"]
    metadata = tmp_path / "site" / f"prunekit_own-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = (
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in points.items())])
        for group, points in project["entry-points"].items()
    )
    (metadata / "entry_points.txt").write_text("\n\n".join(groups))
    for folder in (metadata.parent, OWN_PLUGIN):
        monkeypatch.syspath_prepend(str(folder))


@pytest.mark.usefixtures("installed")
def test_own_plugin_runs_by_name_once_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, "list")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["task", "sines", "prunekit-own"] in rows and ["recipe", "sines", "prunekit-own"] in rows
    call(monkeypatch, "run", "sines", "task.steps=30", "--out", str(tmp_path / "run"), "--quiet")
    assert read_json(tmp_path / "run" / "03-0.1000" / "done" / "stage.json")["kept"] == round(0.1 * 2 * 32 * 128)


def test_own_plugin_runs_without_installing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(OWN_PLUGIN))
    recipe = str(OWN_PLUGIN / "prunekit_own" / "sines.yaml")
    options = ("task.name=python:prunekit_own:sines", "task.steps=21", "strategy.rounds=1")
    call(monkeypatch, "run", recipe, *options, "--out", str(tmp_path / "run"), "--quiet")
    assert read_json(tmp_path / "run" / "01-0.1000" / "done" / "stage.json")["kept"] == 819
