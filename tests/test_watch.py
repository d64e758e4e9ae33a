"""What one sees of a run: a screen of 80 columns, lines in a log, JSON for programs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live

from prunekit.cli import pace as pacing
from prunekit.cli import watch as watching
from prunekit.cli.pace import Pace, Pacer, ended
from prunekit.cli.watch import Events, Lines, Quiet, Screen, fitting, screen
from prunekit.files import write_json
from prunekit.plan import Rewind, Stage

PLAN = (Stage("00-1.0000", Rewind(0, 0), 10), Stage("01-0.5000", Rewind(0, 0), 10))


@pytest.fixture
def clock_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time that a test sets."""
    now = [100.0]
    monkeypatch.setattr(pacing.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results of a stage with two tasks."""
    facts = {"density": 0.5, "remaining": 6, "total": 10}
    write_json(tmp_path / "stage.json", facts)
    measures = [
        {"task": task, "dataset": "set", "metric": metric, "value": value}
        for task, metric, value in (
            ("blur", "psnr", 30),
            ("blur", "psnr", 31),
            ("grain", "psnr", 20),
            ("blur", "ssim", 1),
        )
    ]
    write_json(tmp_path / "metrics.json", measures)
    return tmp_path


def test_the_time_left_counts_steps_and_evaluations(clock_s: list[float]) -> None:
    pacer = Pacer(PLAN, 0.0)
    pacer.stage(PLAN[0], 0)
    paces = []
    for clock in range(10):
        clock_s[0] += 2
        paces.append(pacer.step(PLAN[0], clock, 0.25, 4))
    first = paces[0]
    assert first is not None
    assert (first.step, first.end, first.images_per_s) == (1, 10, 2.0)
    assert (first.stage_left_s, first.run_left_s) == (18.0, 38.0)
    clock_s[0] += 6  # evaluation
    pacer.done(PLAN[0])
    pacer.stage(PLAN[1], 0)
    clock_s[0] += 2
    second = pacer.step(PLAN[1], 0, 0.25, 4)
    assert second is not None
    assert (second.stage_left_s, second.run_left_s) == (24.0, 24.0)


def test_a_pause_is_forgotten(clock_s: list[float]) -> None:
    stage = Stage("00", Rewind(0, 0), 1000)
    pacer = Pacer((stage,), 0.0)
    pacer.stage(stage, 0)
    clock_s[0] += 600
    paces = []
    for clock in range(60):
        clock_s[0] += 0.5
        paces.append(pacer.step(stage, clock, 0.25, 4))
    assert paces[0] is not None and paces[0].images_per_s < 0.01
    assert paces[-1] is not None and (paces[-1].images_per_s, paces[-1].stage_left_s) == (8.0, 470.0)


def test_the_pace_is_not_told_more_often_than_asked(clock_s: list[float]) -> None:
    pacer = Pacer(PLAN, 5.0)
    pacer.stage(PLAN[0], 0)
    told = []
    for clock in range(6):
        clock_s[0] += 2
        told.append(pacer.step(PLAN[0], clock, 0.25, 4) is not None)
    assert told == [False, False, True, False, False, True]


def test_a_log_has_a_line_for_each_event(
    clock_s: list[float], folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "peak_mib", lambda: 1536.0)
    lines = Lines(PLAN)
    lines.stage(PLAN[0], 1.0, 0)
    clock_s[0] += 20
    lines.step(PLAN[0], 0, 0.25, 8)
    lines.done(PLAN[0], folder)
    assert capsys.readouterr().out.splitlines() == [
        "00-1.0000: training from step 0 to 10, density 100.00% of prunable",
        "00-1.0000: step 1/10  loss 0.2500  0.4 images/s  1.5 GiB  left: stage 3 min, run 6 min",
        "00-1.0000: done, density 50.00% of prunable, 60.00% of all; psnr blur 30.50  grain 20.00",
    ]


def test_json_is_one_object_a_line(
    clock_s: list[float], folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "peak_mib", lambda: 1536.0)
    events = Events(PLAN)
    events.stage(PLAN[0], 1.0, 0)
    clock_s[0] += 2
    events.step(PLAN[0], 0, 0.25, 8)
    events.note("so\nand so")
    events.done(PLAN[0], folder)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"event": "stage", "stage": "00-1.0000", "density": 1.0, "step": 0, "end": 10},
        {
            **{"event": "step", "stage": "00-1.0000", "step": 1, "end": 10, "loss": 0.25, "images_per_s": 4.0},
            **{"stage_left_s": 18.0, "run_left_s": 38.0, "memory_mib": 1536.0},
        },
        {"event": "note", "text": "so\nand so"},
        {
            **{"event": "done", "stage": "00-1.0000", "density": 0.5, "density_of_all": 0.6, "metric": "psnr"},
            "scores": {"blur": 30.5, "grain": 20.0},
        },
    ]


def test_data_sets_of_one_task_are_told_apart(folder: Path) -> None:
    measures = [{"task": "blur", "dataset": "A", "metric": "psnr", "value": 20}] * 9
    write_json(folder / "metrics.json", [*measures, {"task": "blur", "dataset": "B", "metric": "psnr", "value": 40}])
    assert ended(folder).means == {"blur (A)": 20.0, "blur (B)": 40.0}


def test_the_screen_fits_eighty_columns(folder: Path) -> None:
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    with Live(console=console, auto_refresh=False) as live:
        view = Screen(PLAN, console, live)
        view.done(PLAN[0], folder)
        view.stage(PLAN[1], 0.5, 0)
        view._show(Pace("01-0.5000", 5, 10, 0.25, 123.4, 3600.0, 86400.0, 2048.0))
        shown = console.render_lines(live.get_renderable(), console.options, pad=False)
    lines = ["".join(segment.text for segment in line).rstrip() for line in shown]
    assert lines[:2] == [
        "stage      of prunable  of all   blur  grain  (psnr)",
        "00-1.0000       50.00%  60.00%  30.50  20.00",
    ]
    assert lines[2].startswith("01-0.5000 ━") and lines[2].endswith("5/10, stage 2 of 2")
    assert lines[3] == "loss 0.2500  123.4 images/s  2.0 GiB  left: stage 60 min, run 24.0 h"
    assert max(map(len, lines)) <= 80


def test_columns_that_do_not_fit_are_left_out() -> None:
    header = ("stage", "of prunable", "of all", *(f"task_{number}" for number in range(20)))
    table = fitting(header, [tuple("0" * 7 for _ in header)], 80)
    titles = [column.header for column in table.columns]
    assert titles == ["stage", "of all", *(f"task_{number}" for number in range(7))]


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"quiet": False, "as_json": False, "main": True}, Lines),
        ({"quiet": True, "as_json": False, "main": True}, Quiet),
        ({"quiet": True, "as_json": True, "main": True}, Events),
        ({"quiet": False, "as_json": True, "main": False}, Quiet),
    ],
)
def test_what_looks_on_suits_the_output(options: dict[str, bool], kind: type) -> None:
    with screen(PLAN, **options) as found:
        assert type(found) is kind


@pytest.mark.parametrize(
    ("name", "value", "kind"), [("TERM", "dumb", Lines), ("CI", "true", Lines), ("TERM", "xterm", Screen)]
)
def test_a_terminal_that_cannot_move_the_cursor_gets_lines(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, kind: type
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(watching.sys.stdout, "isatty", lambda: True, raising=False)
    with screen(PLAN, quiet=False, as_json=False, main=True) as found:
        assert type(found) is kind
