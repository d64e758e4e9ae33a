"""`prunekit doctor` and `prunekit runs`: whatever is broken is told in lines, never in a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint, PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from test_report import make

from prunekit.cli import doctor, main
from prunekit.cli.doctor import examine
from prunekit.cli.listing import read_row, show_runs
from prunekit.errors import PluginError, RunError
from prunekit.registry import Registry
from prunekit.store import Run

REQUIRED = [
    "typer>=0.15",
    "rich>=99",
    "nowhere-to-be-found>=1",
    'pillow>=10; extra == "images"',
    'absent; extra == "more"',
]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["prunekit", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    return int(done.value.code or 0)


def test_all_that_is_needed_is_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "doctor") == 0
    said = capsys.readouterr().out
    assert "ok  versions  prunekit 0.1.0" in said and "ok  packages  accelerate" in said
    assert said.endswith("everything needed is here\n")


def test_what_is_missing_comes_with_its_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "requires", lambda name: REQUIRED)
    assert call(monkeypatch, "doctor", "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["healthy"] is False
    found = {(each["area"], each["state"], each["mend"]) for each in told["findings"]}
    assert ("packages", "missing", 'pip install "rich>=99"') in found
    assert ("packages", "missing", 'pip install "nowhere-to-be-found>=1"') in found
    assert ("extras", "optional", 'pip install "prunekit[more]"') in found
    assert ("extras", "ok", "") in found


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The metadata of an installed plugin."""
    folder = tmp_path / "prunekit_mine-1.5.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: prunekit-mine\nVersion: 1.5\nRequires-Dist: nowhere-to-be-found>=1\n"
        'Requires-Dist: typer>=0.15\nRequires-Dist: absent>=2; extra == "more"\n'
        'Requires-Dist: prunekit-mine[more]; extra == "all"\nProvides-Extra: more\nProvides-Extra: all\n'
    )
    (folder / "entry_points.txt").write_text("[prunekit.scorer]\nmine = no_such_module_here:mine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_what_a_plugin_needs_is_looked_at(plugin: Path) -> None:
    found = {(each.area, each.state, each.text, each.mend) for each in examine()}
    text = "nowhere-to-be-found is not installed"
    assert ("packages", "missing", text, 'pip install "nowhere-to-be-found>=1"') in found
    for extra in ("more", "all"):
        text, mend = f"prunekit-mine[{extra}]: absent is not installed", f'pip install "prunekit-mine[{extra}]"'
        assert ("extras", "optional", text, mend) in found


@pytest.mark.parametrize(
    ("held", "plain", "built"),
    [
        ({"url": "file:///home/me/my%20plugin", "dir_info": {"editable": True}}, "-e '/home/me/my plugin'", None),
        ({"url": "file:///home/me/clone", "dir_info": {}}, "/home/me/clone", None),
        ({"url": "https://example.org/a.git", "vcs_info": {"vcs": "git"}}, "git+https://example.org/a.git", None),
        ({}, "prunekit-mine", "--no-binary prunekit-mine prunekit-mine"),
    ],
)
def test_a_package_is_installed_again_from_where_it_came(
    plugin: Path, held: dict[str, Any], plain: str, built: str | None
) -> None:
    (plugin / "direct_url.json").write_text(json.dumps(held))
    command = "pip install --force-reinstall --no-deps "
    assert doctor._reinstall("prunekit-mine") == command + plain
    assert doctor._reinstall("prunekit-mine", build=True) == command + (built or plain)


def test_whatever_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise OSError("libtorch.so: cannot open\nshared object file")

    monkeypatch.setattr(doctor, "import_module", broken)
    monkeypatch.setattr(doctor.shutil, "disk_usage", broken)
    found = examine()
    texts = {each.area: each.text for each in found if each.state == "missing"}
    assert set(texts) == {"packages", "disk"}
    assert [each.mend for each in found if each.area == "packages" and each.mend] == [
        "pip install --force-reinstall torch"
    ]
    assert {each.text for each in found if each.area in ("devices", "kernels", "plugins")} == {
        "cannot be looked at before torch is mended"
    }
    assert texts["packages"].endswith("cannot be imported: libtorch.so: cannot open shared object file")


def test_a_broken_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry.discover([EntryPoint("mine", "no_such_module_here:mine", "prunekit.scorer")])
    monkeypatch.setattr(doctor.Registry, "discover", lambda: registry)
    wrong = [each for each in examine() if each.state == "missing"]
    assert len(wrong) == 1
    assert "scorer 'mine' of an installed package could not be imported" in wrong[0].text


def test_two_plugins_of_one_name_do_not_stop_the_doctor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def twice() -> Registry:
        raise PluginError("two packages register the scorer 'mine'.")

    monkeypatch.setattr(doctor.Registry, "discover", twice)
    assert call(monkeypatch, "doctor") == 1
    assert "two packages register the scorer 'mine'." in capsys.readouterr().out
    assert call(monkeypatch, "list") == 2


def test_without_its_own_metadata_the_doctor_still_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", none)
    assert any(each.area == "versions" and each.state == "missing" for each in examine())


def test_runs_are_listed_with_what_they_have_reached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make(tmp_path / "deep" / "er" / "toy-1")
    broken = make(tmp_path / "broken")
    (broken / "plan.json").write_text("[{")
    row = read_row(run)
    assert (row.task, row.strategy, row.done, row.stages, row.score) == ("toy", "iterative", 2, 3, "blur 30.5 psnr")
    assert row.density_of_all == 9 / 14 and row.bytes > 1000 and not row.held
    show_runs(tmp_path, as_json=False)
    said = capsys.readouterr().out
    assert "deep/er/toy-1" in said and "2/3" in said and "64.3%" in said
    assert "damaged: JSONDecodeError" in said
    show_runs(run, as_json=True)
    assert [each["run"] for each in json.loads(capsys.readouterr().out)] == [str(run)]


@pytest.mark.slow
def test_a_run_that_another_process_holds_is_running(tmp_path: Path) -> None:
    run = make(tmp_path / "toy-1")
    code = "import sys, time; from pathlib import Path; from prunekit.store import Run\n"
    code += "Run(Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        assert read_row(run).held
    finally:
        process.kill()
        process.communicate()
    assert not read_row(run).held
    Run(run).acquire()


def test_no_runs_and_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_runs(tmp_path, as_json=False)
    assert "no runs in" in capsys.readouterr().out
    with pytest.raises(RunError, match="is not a folder"):
        show_runs(tmp_path / "nowhere", as_json=False)
