from __future__ import annotations

import importlib
import runpy
from pathlib import Path

import pytest

from prunekit.cli import main
from prunekit.files import read_json

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.py"))
LONG = {"other_restorers.py"}


@pytest.mark.filterwarnings("ignore:'saved_variables' is deprecated:DeprecationWarning")  # of NAFNet's own code
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in NAMES]
)
def test_example_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert "prunable" in capsys.readouterr().out


def test_own_loop_reaches_its_density(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "own_loop.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert "kept  2,458 of 24,576 prunable (10.00%)" in lines[-1]


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


def test_own_plugin_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES / "own_plugin"))
    recipe = str(EXAMPLES / "own_plugin" / "sines.yaml")
    monkeypatch.setattr(
        "sys.argv", ["prunekit", "run", recipe, "task.steps=30", "--out", str(tmp_path / "run"), "--quiet"]
    )
    with pytest.raises(SystemExit) as done:
        main()
    assert not done.value.code
    assert read_json(tmp_path / "run" / "03-0.1000" / "done" / "stage.json")["kept"] == round(0.1 * 2 * 32 * 128)
