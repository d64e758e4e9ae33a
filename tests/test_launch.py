"""Runs started from Python: the same bits as the command line's, tables of plain values, curves without doubles."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import prunekit as pk
from prunekit import train
from prunekit.cli import main
from prunekit.errors import PruneKitError, RecipeError, RunError
from prunekit.launch import Asked
from prunekit.watch import Watches

TOY = Path(__file__).with_name("toy.yaml")
STAGES = ["00-1.0000", "01-0.5000", "02-0.2500"]


def start(out: Path, **options: Any) -> pk.Outcome:
    return pk.run(TOY, out=out, overrides={"task.steps": 8, "task.dropout": 0.2}, device="cpu", **options)


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Any:
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()  # as the command line leaves it, for the whole process


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> pk.Outcome:
    return start(tmp_path_factory.mktemp("runs") / "toy", tensorboard=True)


class Stopping:
    """Looks on, and stops the run after a step of its second stage."""

    def stage(self, stage: pk.Stage, density: float, clock: int) -> None: ...

    def step(self, stage: pk.Stage, clock: int, loss: float, images: int) -> None:
        if (stage.name, clock) == (STAGES[1], 6):
            raise KeyboardInterrupt

    def note(self, text: str) -> None: ...

    def done(self, stage: pk.Stage, folder: Path) -> None: ...


def losses(run: Path, stage: str) -> list[int]:
    events = EventAccumulator(str(run / "tensorboard" / stage)).Reload()
    return [event.step for event in events.Scalars("loss")]


def test_tables_hold_what_the_run_found(outcome: pk.Outcome) -> None:
    assert [row["stage"] for row in outcome.stages] == STAGES
    last = outcome.stages[-1]
    assert (last["kept"], last["prunable"], last["remaining"], last["total"]) == (36, 144, 87, 195)
    assert last["density_of_all"] == 87 / 195
    assert [(row["stage"], row["task"], row["metric"], row["n"]) for row in outcome.scores] == [
        (name, "toy", "mse", 6) for name in STAGES
    ]
    assert outcome.scores[0]["difference_to_dense"] == 0
    gap = outcome.scores[2]["value"] - outcome.scores[0]["value"]
    assert outcome.scores[2]["difference_to_dense"] == pytest.approx(gap)


def test_it_reads_in_one_line(outcome: pk.Outcome) -> None:
    score = f"{outcome.scores[-1]['value']:.4g}"
    assert repr(outcome) == f"Outcome({outcome.run}: 3 stages, 44.62% of all kept; mse: toy {score})"


def test_data_sets_of_one_task_are_told_apart_and_an_outcome_is_a_key(tmp_path: Path) -> None:
    row = {"stage": "00", "task": "denoise_25", "metric": "psnr"}
    scores = ({**row, "dataset": "A", "value": 28.0}, {**row, "dataset": "B", "value": 30.0})
    outcome = pk.Outcome(tmp_path, ({"stage": "00", "density_of_all": 0.5},), scores)
    assert repr(outcome).endswith("; psnr: denoise_25 (A) 28, denoise_25 (B) 30)")
    assert {outcome: 1}[pk.Outcome(tmp_path, outcome.stages, scores)] == 1


def test_pandas_where_it_is_there(outcome: pk.Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    frame = outcome.to_pandas("stages")
    assert isinstance(frame, pandas.DataFrame) and list(frame["kept"]) == [144, 72, 36]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(PruneKitError, match="pip install pandas"):
        outcome.to_pandas()


def test_reports_are_written_on_request(outcome: pk.Outcome, tmp_path: Path) -> None:
    assert not (outcome.run / "report").exists()
    assert outcome.report(tmp_path).name == "report.md"
    assert outcome.report(tmp_path, html=True).name == "report.html"


def test_the_command_line_and_curves_give_the_same_bits(
    outcome: pk.Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["run", str(TOY), "task.steps=8", "task.dropout=0.2", "--out", str(tmp_path), "--device", "cpu", "--quiet"]
    monkeypatch.setattr("sys.argv", ["prunekit", *words])
    with pytest.raises(SystemExit):
        main()
    for stage in STAGES:
        for name in ("weights", "cut", "samples", "worst"):
            file = Path(stage) / "done" / f"{name}.safetensors"
            assert (tmp_path / file).read_bytes() == (outcome.run / file).read_bytes()


def test_a_run_that_goes_on_has_no_point_twice(
    outcome: pk.Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(train, "SAVE_SHARE", 1e9)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, tensorboard=True, watch=Stopping())
    again = start(tmp_path, tensorboard=True)
    assert (tmp_path / STAGES[2] / "done" / "weights.safetensors").read_bytes() == (
        outcome.run / STAGES[2] / "done" / "weights.safetensors"
    ).read_bytes()
    assert losses(tmp_path, STAGES[0]) == list(range(8))
    assert losses(tmp_path, STAGES[1]) == losses(outcome.run, STAGES[1]) == list(range(4, 8))  # rewound to step 4
    scores = EventAccumulator(str(tmp_path / "tensorboard" / "scores")).Reload()
    assert [event.step for event in scores.Scalars("mse/toy noise")] == [0, 1, 2]
    assert scores.Scalars("density of all")[2].value == pytest.approx(87 / 195)
    assert len(again.stages) == 3


def test_mistakes_are_the_command_lines(outcome: pk.Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="did you mean 'steps'"):
        pk.run(TOY, out=tmp_path, overrides={"task.stesp": 1})
    with pytest.raises(RunError, match=r"another recipe \(task\.steps: 8 there, 9 now\)"):
        pk.run(TOY, out=outcome.run, overrides={"task.steps": 9, "task.dropout": 0.2}, device="cpu")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(PruneKitError, match=r'pip install "prunekit\[tensorboard\]"'):
        start(tmp_path / "new", tensorboard=True)


@pytest.mark.slow
def test_the_callers_threads_and_precision_come_back(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    for precision in ("bf16", "fp32"):  # accelerate would refuse a second precision in one process
        pk.run(TOY, out=tmp_path / precision, overrides={"task.steps": 4, "precision": precision}, device="cpu")
    assert torch.get_num_threads() == threads
    Accelerator(cpu=True, mixed_precision="bf16")  # the caller's own stays
    with pytest.raises(RecipeError, match="another device or precision.*process of its own"):
        pk.run(TOY, out=tmp_path / "fp32", overrides={"task.steps": 4, "precision": "fp32"}, device="cpu")


def test_several_look_on() -> None:
    class Told:
        def __init__(self) -> None:
            self.texts: list[str] = []

        def __getattr__(self, name: str) -> Any:
            return lambda *given: self.texts.append(f"{name} {len(given)}")

    told = [Told(), Told()]
    both = Watches(told)
    stage = pk.Stage("00", pk.Rewind(0, 0), 1)
    both.stage(stage, 1.0, 0)
    both.step(stage, 0, 0.5, 8)
    both.note("so")
    both.done(stage, Path())
    assert told[0].texts == told[1].texts == ["stage 3", "step 4", "note 1", "done 2"]
    assert Asked().device == "auto"
