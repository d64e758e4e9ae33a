from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pages
import pytest
from typer.testing import CliRunner

from prunekit.cli import main
from prunekit.cli.app import build
from prunekit.cli.run import finish
from prunekit.errors import PluginError
from prunekit.files import read_json
from prunekit.registry import Registry
from prunekit.store import Run

TESTS = Path(__file__).parent
TOY = str(TESTS / "toy.yaml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["prunekit", "run", TOY, "task.steps=8", "--out", str(out), "--device", "cpu"])
        with pytest.raises(SystemExit) as done:
            main()
    assert done.value.code == 0
    return out


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["prunekit", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    return int(done.value.code or 0)


def test_a_run_leaves_results_and_a_report(finished: Path) -> None:
    facts = read_json(finished / "02-0.2500" / "done" / "stage.json")
    assert (facts["kept"], facts["prunable"], facts["remaining"], facts["total"]) == (36, 144, 87, 195)
    assert (finished / "report" / "report.md").exists()
    assert not list(finished.glob("*/last.safetensors"))
    assert read_json(finished / "env.json")["threads"] == 1


def test_the_reference_lists_what_a_run_leaves(finished: Path) -> None:
    named = {"00-1.0000", "01-0.5000", "02-0.2500", "step-4.safetensors"}  # by the recipe
    left = {path.name for path in finished.iterdir()} - named
    assert left == {"recipe.yaml", "env.json", "plan.json", "step-0.safetensors", "lock", "report"}
    layout = next(block.text for block in pages.blocks("reference/runs.md") if block.language == "text")
    assert left <= {word.rstrip("/") for word in layout.split()}
    (listed,) = [line.split()[1:] for line in layout.splitlines() if line.startswith("report/")]
    assert listed == ["report.md", "results.csv", "measures.csv", "*.png"]
    assert {path.name for path in (finished / "report").glob("*") if path.suffix != ".png"} == set(listed[:3])


def test_the_version_is_shown_without_a_verb(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == "prunekit 0.1.0\n"


def test_plan_shows_both_denominators(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "plan", TOY) == 0
    printed = capsys.readouterr().out
    assert "144 prunable of 195 parameters; 51 are never cut" in printed
    assert "36 (25.00%)" in printed
    assert "87 (44.62%)" in printed


def test_a_repeated_run_says_so(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "run", TOY, "task.steps=8", "--out", str(finished), "--device", "cpu") == 0
    assert "this run is complete; nothing to do" in capsys.readouterr().out


def test_json_is_all_that_programs_read(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "run", TOY, "task.steps=8", "--out", str(finished), "--device", "cpu", "--json") == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["note", "done", "done", "done", "finished"]
    assert events[3]["density"] == 0.25 and set(events[3]["scores"]) == {"toy"}
    assert events[-1]["report"] == str(finished / "report" / "report.md")


def test_brackets_in_a_path_are_printed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "[fast]" / "run"
    shutil.copytree(finished, run)
    finish(Run(run), as_json=False)
    assert f"report: {run}/report/report.md\n" in capsys.readouterr().out
    assert call(monkeypatch, "eval", str(run), "--device", "cpu") == 0
    assert f"{run}, stage 02-0.2500" in capsys.readouterr().out
    assert call(monkeypatch, "cp", TOY, f"{run}/mine.yaml") == 0
    assert f"then: prunekit run {run}/mine.yaml\n" in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "200")
    assert call(monkeypatch, "runs", str(tmp_path)) == 0
    assert "\n[fast]/run " in capsys.readouterr().out


def test_fresh_puts_the_old_run_aside(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    arguments = ("run", TOY, "task.steps=1", "strategy.rewind=init", "--out", str(out), "--device", "cpu")
    assert call(monkeypatch, *arguments) == 0
    assert call(monkeypatch, *arguments, "--fresh") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run~1"]
    said = capsys.readouterr()
    assert "put aside as" in said.out.replace("\n", " ") and "put aside" not in said.err


def test_another_recipe_in_the_same_directory_is_refused(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "run", TOY, "task.steps=9", "--out", str(finished), "--device", "cpu") == 2
    assert "another recipe (task.steps: 8 there, 9 now)" in capsys.readouterr().err


def test_another_data_set_is_refused_unless_told_to_drift(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("toy.Toy.fingerprint", lambda self: "other")
    assert call(monkeypatch, "run", TOY, "task.steps=8", "--out", str(finished), "--device", "cpu") == 2
    assert "data was 'toy 0', is 'other'" in capsys.readouterr().err
    assert call(monkeypatch, "run", TOY, "task.steps=8", "--out", str(finished), "--device", "cpu", "--drift") == 0
    assert "drifting: data" in capsys.readouterr().out


def test_eval_measures_again(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measures = read_json(finished / "02-0.2500" / "done" / "metrics.json")
    mean = sum(measure["value"] for measure in measures) / len(measures)
    assert call(monkeypatch, "eval", str(finished), "--device", "cpu") == 0
    printed = capsys.readouterr().out
    assert f"{mean:.4g}" in printed
    assert printed.endswith("\nmse: lower is better; mean\n")
    assert call(monkeypatch, "eval", str(finished), "--stage", "09", "--device", "cpu") == 2
    assert "no finished stage '09'; finished: 00-1.0000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "mir"), "there is no recipe 'mir'"),
        (("plan", TOY, "task.stesp=1"), "did you mean 'steps'"),
        (("eval", "nowhere"), "is nowhere a run directory?"),
        (("report", "nowhere"), "nowhere"),
        (("run", TOY, "--device", "tpu"), "--device must be auto or cpu"),
    ],
)
def test_mistakes_cost_two(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_plugin_that_fails_to_import_leaves_the_other_verbs_alone() -> None:
    point = EntryPoint(name="bad", value="no_such_module_here:app", group="prunekit.command")
    program = build(Registry.discover([point]))
    assert CliRunner().invoke(program, ["list"]).exit_code == 0
    assert "broken: call it to see why" in CliRunner().invoke(program, ["--help"]).output
    error = CliRunner().invoke(program, ["bad"]).exception
    assert isinstance(error, PluginError)
    assert "command 'bad' of an installed package could not be imported" in str(error)


def test_list_shows_the_names_that_need_no_entry_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "list") == 0
    rows = {tuple(line.split()[:2]) for line in capsys.readouterr().out.splitlines()}
    assert {("scorer", "magnitude"), ("network", "timm:NAME"), ("network", "spandrel:ARCH")} < rows
    assert {("network", "spandrel:FILE.pth"), ("any", "python:MODULE:NAME")} < rows


def test_cp_never_overwrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "cp", TOY, str(tmp_path / "mine.yaml")) == 0
    assert (tmp_path / "mine.yaml").read_text() == Path(TOY).read_text()
    assert call(monkeypatch, "cp", TOY, str(tmp_path / "mine.yaml")) == 2
    assert "exists already and is left as it is" in capsys.readouterr().err


def test_show_prints_the_recipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "show", TOY) == 0
    assert capsys.readouterr().out == Path(TOY).read_text()


@pytest.mark.parametrize(("words", "answer"), [("prunekit doc", "doctor"), ("prunekit run dig", "digits")])
def test_the_shell_completes_verbs_and_recipes(words: str, answer: str) -> None:
    asked = {"_PRUNEKIT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    code = "import sys; sys.argv = ['prunekit']; from prunekit.cli import main; main()"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [answer]
