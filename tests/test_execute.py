"""What the walk over a plan leaves behind, stage by stage."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import Tensor, nn

from prunekit.amount import Density
from prunekit.errors import CheckpointError, Interrupted, PruneKitError
from prunekit.execute import Execution
from prunekit.files import read_json, read_tensors, write_tensors
from prunekit.job import Job, bind_job
from prunekit.masks import Masks
from prunekit.plan import Rewind, Stage
from prunekit.recipe import read_recipe
from prunekit.registry import Registry
from prunekit.rewind import snapshot
from prunekit.store import Run
from prunekit.task import task_data

TOY = str(Path(__file__).with_name("toy.yaml"))
REGISTRY = Registry.discover([])


class Notes:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.losses: list[float] = []

    def stage(self, stage: Stage, density: float, clock: int) -> None:
        pass

    def step(self, stage: Stage, clock: int, loss: float, images: int) -> None:
        self.losses.append(loss)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def done(self, stage: Stage, folder: Path) -> None:
        pass


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Any:
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()  # accelerate keeps its precision for the whole process


def walk(path: Path, *overrides: str, notes: Notes | None = None) -> tuple[Job, Path]:
    job = bind_job(read_recipe(TOY, ["task.steps=10", *overrides], REGISTRY), REGISTRY)
    precision = "bf16" if job.recipe.precision == "bf16" else "no"
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    Execution(job, Run(path), accelerator, notes or Notes(), lambda: False).walk()
    return job, path


def weights(path: Path, stage: str) -> dict[str, Tensor]:
    return read_tensors(path / stage / "done" / "weights.safetensors")


def masks(path: Path, stage: str, name: str = "cut") -> Masks:
    return Masks.load(read_tensors(path / stage / "done" / f"{name}.safetensors"))


def assert_ticket(found: dict[str, Tensor], origin: dict[str, Tensor], cut: Masks) -> None:
    for name, tensor in origin.items():
        expected = torch.where(cut[name], tensor, torch.zeros(())) if name in cut else tensor
        assert torch.equal(found[name], expected), name


def test_a_round_starts_at_the_masked_snapshot_bit_for_bit(tmp_path: Path) -> None:
    job, path = walk(tmp_path, "strategy.rewind=step:10")  # nothing is left to train after the rewind
    origin = read_tensors(path / "step-10.safetensors")
    assert "1.running_mean" in origin
    assert_ticket(weights(path, "01-0.5000"), origin, masks(path, "00-1.0000", "next"))
    assert_ticket(weights(path, "02-0.2500"), origin, masks(path, "01-0.5000", "next"))
    assert masks(path, "02-0.2500").kept == 36
    assert read_json(path / "02-0.2500" / "done" / "stage.json")["unused"] is None
    assert [stage.name for stage in job.plan] == ["00-1.0000", "01-0.5000", "02-0.2500"]


def test_step_zero_is_the_seeded_initialisation(tmp_path: Path) -> None:
    job, path = walk(tmp_path, "strategy.rewind=init", "strategy.rounds=1")
    torch.manual_seed(0)
    for name, tensor in snapshot(job.task.model()).items():
        assert torch.equal(read_tensors(path / "step-0.safetensors")[name], tensor)


def test_a_partial_rewind_keeps_what_it_is_told(tmp_path: Path) -> None:
    job = bind_job(read_recipe(TOY, ["task.steps=10"], REGISTRY), REGISTRY)
    plan = (
        Stage("00", Rewind(0, 0), 10, ((10, Density(0.5)),)),
        Stage("01", Rewind(0, 10, ("*bias", "1.*")), 10),  # to step 0's weights, but nothing left to train
    )
    Execution(replace(job, plan=plan), Run(tmp_path), Accelerator(cpu=True), Notes(), lambda: False).walk()
    start, trained = read_tensors(tmp_path / "step-0.safetensors"), weights(tmp_path, "00")
    kept = {name: trained[name] if name.endswith("bias") or name.startswith("1.") else start[name] for name in start}
    assert not torch.equal(trained["4.bias"], start["4.bias"])
    assert_ticket(weights(tmp_path, "01"), kept, masks(tmp_path, "01"))


def test_learning_rate_rewinding_keeps_trained_weights_and_the_last_rates(tmp_path: Path) -> None:
    notes = Notes()
    _, path = walk(tmp_path, "strategy.rewind=lr:0", "strategy.rounds=1", "task.batch_norm=false", notes=notes)
    assert_ticket(weights(path, "01-0.2500"), weights(path, "00-1.0000"), masks(path, "00-1.0000", "next"))
    assert len(notes.losses) == 10
    _, path = walk(tmp_path / "b", "strategy.rewind=lr:3", "strategy.rounds=1")
    lines = (path / "01-0.2500" / "log.jsonl").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ['{"clock": 7', '{"clock": 8', '{"clock": 9']


def test_statistics_are_recalibrated_when_trained_weights_are_cut(tmp_path: Path) -> None:
    job, path = walk(tmp_path, "strategy.rewind=lr:0", "strategy.rounds=1")
    after = weights(path, "01-0.2500")
    model = job.model()
    model.load_state_dict({**model.state_dict(), **after})
    inputs = torch.stack(list(task_data(job.task, torch.device("cpu")).inputs(model)))
    hidden = model[0](inputs)
    assert torch.allclose(after["1.running_mean"], hidden.mean(dim=(0, 1)), atol=1e-6)
    assert not torch.allclose(after["1.running_mean"], weights(path, "00-1.0000")["1.running_mean"], atol=1e-6)


def test_gradual_cutting_inside_one_training(tmp_path: Path) -> None:
    recipe = "strategy={name: gradual, schedule: {name: linear, density: 0.25}, begin: 2, end: 8, every: 3}"
    _, path = walk(tmp_path, recipe)
    facts = read_json(path / "00-0.2500" / "done" / "stage.json")
    assert (facts["kept"], facts["prunable"]) == (36, 144)
    trained = weights(path, "00-0.2500")
    assert sum(int(torch.count_nonzero(trained[name])) for name in masks(path, "00-0.2500")) == 36


def test_one_shot_from_a_weights_file_trains_nothing_before_the_cut(tmp_path: Path) -> None:
    torch.manual_seed(7)
    model = bind_job(read_recipe(TOY, [], REGISTRY), REGISTRY).task.model()
    write_tensors(tmp_path / "given.safetensors", snapshot(model))
    recipe = ("strategy.dense=false", "strategy.rounds=1", "strategy.rewind=lr:2")
    _, path = walk(tmp_path / "run", f"weights={tmp_path / 'given.safetensors'}", *recipe)
    assert_ticket(weights(path, "00-1.0000"), snapshot(model), masks(path, "00-1.0000"))
    assert not (path / "00-1.0000" / "log.jsonl").exists()
    assert masks(path, "01-0.2500") == masks(path, "00-1.0000", "next")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "given.safetensors", snapshot(nn.Linear(2, 2)))
    with pytest.raises(CheckpointError, match="does not fit this network"):
        walk(tmp_path / "run", f"weights={tmp_path / 'given.safetensors'}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("strategy.keep=['prompt*']", "strategy.keep: 'prompt.*' matches no name"),
        ("prune.allocation={name: per_layer, rates: {'output*': 0.5}}", "'output.*' matches no name"),
        ("weights=nowhere.pt", "nowhere.pt: there is no such file"),
    ],
)
def test_what_fits_nothing_is_found_before_anything_is_trained(override: str, message: str) -> None:
    with pytest.raises(PruneKitError, match=message):
        bind_job(read_recipe(TOY, [override], REGISTRY), REGISTRY)


def test_a_lost_file_is_told_and_never_skips_a_cut(tmp_path: Path) -> None:
    _, path = walk(tmp_path)
    (path / "00-1.0000" / "done" / "next.safetensors").unlink()
    for name in ("01-0.5000", "02-0.2500"):
        shutil.rmtree(path / name)
    with pytest.raises(CheckpointError, match=r"next\.safetensors is missing"):
        walk(tmp_path)


def test_multiply_adds_are_those_of_the_masks_under_autocast_too(tmp_path: Path) -> None:
    _, path = walk(tmp_path, "strategy.rounds=1", "precision=bf16")
    facts = read_json(path / "01-0.2500" / "done" / "stage.json")
    assert (facts["macs_dense"], facts["macs_kept"]) == (144, 36)


def test_unused_parameters_and_emptied_tensors_are_named(tmp_path: Path) -> None:
    notes = Notes()
    recipe = ("task.unused=true", "strategy.rounds=1", "strategy.schedule.density=0.007")
    _, path = walk(tmp_path, *recipe, notes=notes)
    facts = read_json(path / "01-0.0070" / "done" / "stage.json")
    assert facts["unused"] == ["idle"]
    assert facts["kept"] == 1
    assert len(facts["emptied"]) == 1
    assert notes.notes == [f"nothing is left of {facts['emptied'][0]}: their layers now pass on zeros."]


def test_a_control_reuses_another_runs_ticket(tmp_path: Path) -> None:
    _, first = walk(tmp_path / "a", "strategy.rounds=1")
    recipe = ("strategy.dense=false", "strategy.rounds=1", "strategy.rewind=init", "seed=5")
    _, second = walk(tmp_path / "b", f"prune.scorer={{name: ticket, masks: {first}}}", *recipe)
    _, third = walk(tmp_path / "c", f"prune.scorer={{name: ticket, masks: {first}, shuffle: 1}}", *recipe)
    ticket = masks(first, "01-0.2500")
    assert masks(second, "01-0.2500") == ticket
    assert masks(third, "01-0.2500") != ticket
    assert masks(third, "01-0.2500").per_tensor() == ticket.per_tensor()


def test_bf16_trains_float32_weights_to_another_result(tmp_path: Path) -> None:
    _, single = walk(tmp_path / "a", "strategy.rounds=1")
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    _, half = walk(tmp_path / "b", "strategy.rounds=1", "precision=bf16")
    assert weights(half, "00-1.0000")["0.weight"].dtype == torch.float32
    assert not torch.equal(weights(half, "00-1.0000")["0.weight"], weights(single, "00-1.0000")["0.weight"])


def test_workers_change_nothing(tmp_path: Path) -> None:
    _, none = walk(tmp_path / "a", "strategy.rounds=1", "task.steps=4")
    _, two = walk(tmp_path / "b", "strategy.rounds=1", "task.steps=4", "task.workers=2")
    assert (none / "01-0.2500" / "done" / "weights.safetensors").read_bytes() == (
        two / "01-0.2500" / "done" / "weights.safetensors"
    ).read_bytes()


def test_a_stop_is_obeyed_at_the_next_step_with_a_checkpoint_there(tmp_path: Path) -> None:
    job = bind_job(read_recipe(TOY, ["task.steps=10"], REGISTRY), REGISTRY)
    notes = Notes()
    execution = Execution(job, Run(tmp_path), Accelerator(cpu=True), notes, lambda: len(notes.losses) >= 3)
    with pytest.raises(Interrupted, match="stopped in stage 00-1.0000 after step 4 was saved"):
        execution.walk()
    assert (tmp_path / "00-1.0000" / "last.safetensors").exists()


def test_the_worst_item_of_each_task_is_pictured(tmp_path: Path) -> None:
    _, path = walk(tmp_path, "strategy.rounds=1")
    for stage in ("00-1.0000", "01-0.2500"):
        measures = read_json(path / stage / "done" / "metrics.json")
        item = max(measures, key=lambda measure: float(measure["value"]))["item"]  # an error: lower is better
        assert list(read_tensors(path / stage / "done" / "worst.safetensors")) == [f"toy/{item}/output"]
