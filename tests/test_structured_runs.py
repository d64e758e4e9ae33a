"""What the walk over a plan does with structured cuts: which weights each smaller network starts from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import Tensor, nn

from prunekit.amount import Density, MacDensity, Rate
from prunekit.cli.evaluate import evaluate_run
from prunekit.cli.inform import asked_texts
from prunekit.errors import RecipeError, SelectionError
from prunekit.execute import Execution
from prunekit.files import read_json, read_tensors
from prunekit.job import Job, bind_job
from prunekit.measure import count_macs
from prunekit.plan import Rewind, Stage
from prunekit.recipe import read_recipe
from prunekit.registry import Registry
from prunekit.report import write_report
from prunekit.report.results import read_results
from prunekit.report.table import costs
from prunekit.rewind import snapshot
from prunekit.shape import Shape
from prunekit.store import Run, stored_plan
from prunekit.task import task_data

TOY = str(Path(__file__).with_name("toy_structured.yaml"))
REGISTRY = Registry.discover([])
DENSE, HALF, QUARTER = "00-1.0000", "01-0.5000", "02-0.2500"
AT_ONCE = "01-0.2500"


class Silent:
    def stage(self, stage: Stage, density: float, clock: int) -> None:
        pass

    def step(self, stage: Stage, clock: int, loss: float, images: int) -> None:
        pass

    def note(self, text: str) -> None:
        raise AssertionError(text)

    def done(self, stage: Stage, folder: Path) -> None:
        pass


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def bound(*overrides: str) -> Job:
    return bind_job(read_recipe(TOY, ["task.steps=10", *overrides], REGISTRY), REGISTRY)


def walk(path: Path, job: Job) -> Path:
    run = Run(path)
    run.open(job.recipe, {"data": "toy"}, stored_plan(job.plan))
    Execution(job, run, Accelerator(cpu=True), Silent(), lambda: False).walk()
    run.close()
    return path


def weights(path: Path, stage: str) -> dict[str, Tensor]:
    return read_tensors(path / stage / "done" / "weights.safetensors")


def shape(path: Path, stage: str, name: str = "cut") -> Shape:
    return Shape.load(read_tensors(path / stage / "done" / f"{name}.safetensors"))


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_a_round_starts_at_the_snapshot_in_the_next_shape_bit_for_bit(tmp_path: Path) -> None:
    path = walk(tmp_path, bound("strategy.rewind=step:10"))  # nothing is left to train after the rewind
    origin = read_tensors(path / "step-10.safetensors")
    assert origin["0.weight"].shape == (16, 6)
    for before, stage, units in ((DENSE, HALF, 8), (HALF, QUARTER, 4)):
        cut = shape(path, before, "next")
        assert shape(path, stage) == cut
        assert len(cut.indices["4.weight"][1]) == units
        assert weights(path, stage)["1.running_var"].shape == (units,)
        assert_equal(weights(path, stage), cut.select(origin))
    larger, smaller = shape(path, HALF).indices, shape(path, QUARTER).indices
    assert set(smaller["0.weight"][0].tolist()) < set(larger["0.weight"][0].tolist())


def test_a_round_that_trains_goes_on_from_the_initialisation(tmp_path: Path) -> None:
    job = bound("strategy.rewind=init", "strategy.rounds=1")
    path = walk(tmp_path, job)
    assert_equal(read_tensors(path / "step-0.safetensors"), snapshot(job.model()))
    assert len((path / AT_ONCE / "log.jsonl").read_text().splitlines()) == 10
    assert weights(path, AT_ONCE)["0.weight"].shape == (4, 6)


def test_reinit_starts_from_another_seeds_network_in_the_next_shape(tmp_path: Path) -> None:
    job = bound()
    plan = (Stage("00", Rewind(0, 0), 10, ((10, Density(0.5)),)), Stage("01", Rewind(0, 10, (), 7), 10))
    path = walk(tmp_path, replace(job, plan=plan))
    assert_equal(weights(path, "01"), shape(path, "01").select(snapshot(job.model(seed=7))))


def test_a_partial_rewind_keeps_trained_tensors_of_the_shape_before(tmp_path: Path) -> None:
    keep = ("*bias", "1.*")
    plan = (
        Stage("00", Rewind(0, 0), 10, ((10, Density(0.6)),)),
        Stage("01", Rewind(0, 5), 10, ((10, Density(0.3)),)),
        Stage("02", Rewind(0, 10, keep), 10),  # to step 0's weights, but nothing left to train
    )
    path = walk(tmp_path, replace(bound(), plan=plan))
    before, cut = shape(path, "01"), shape(path, "02")
    trained = cut.select(weights(path, "01"), since=before)
    start = cut.select(read_tensors(path / "step-0.safetensors"))
    assert not torch.equal(trained["0.bias"], start["0.bias"])
    kept = {name: trained[name] if name.endswith("bias") or name.startswith("1.") else start[name] for name in start}
    assert_equal(weights(path, "02"), kept)


def test_fine_tuning_goes_on_with_the_trained_weights_and_fresh_statistics(tmp_path: Path) -> None:
    job = bound("strategy.rewind=lr:0", "strategy.rounds=1")
    path = walk(tmp_path, job)
    found, cut = weights(path, AT_ONCE), shape(path, AT_ONCE)
    statistics = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    expected = cut.select(weights(path, DENSE))
    assert_equal(
        {name: found[name] for name in found.keys() - statistics},
        {name: expected[name] for name in expected.keys() - statistics},
    )
    model, _ = job.trained(path / AT_ONCE / "done")
    hidden = model[0](torch.stack(list(task_data(job.task, torch.device("cpu")).inputs(model))))  # type: ignore[index]
    assert torch.allclose(found["1.running_mean"], hidden.mean(dim=(0, 1)), atol=1e-6)
    assert not torch.allclose(found["1.running_mean"], expected["1.running_mean"], atol=1e-6)


def test_facts_are_those_of_the_smaller_network(tmp_path: Path) -> None:
    job = bound("task.batch_norm=false")
    path = walk(tmp_path, job)
    facts = read_json(path / QUARTER / "done" / "stage.json")
    # 4 of 16 units: 6 weights in, a bias, a norm's scale and shift, 3 weights out each; 3 biases stay
    expected = {"structured": True, "kept": 4 * 12 + 3, "remaining": 51, "prunable": 195, "total": 195, "emptied": []}
    expected |= {"density": 51 / 195, "macs_dense": 144, "macs_kept": 36, "ticket_bytes": 4 * 51}
    assert {key: facts[key] for key in expected} == expected
    assert facts["per_tensor"]["4.weight"] == [12, 48] and facts["per_tensor"]["4.bias"] == [3, 3]
    model, cut = job.trained(path / QUARTER / "done")
    assert isinstance(model[2], nn.ReLU) and count_macs(model, job.task.example()).dense == 36  # type: ignore[index]
    assert cut.kept == sum(parameter.numel() for parameter in model.parameters()) == 51


def test_the_report_and_eval_read_a_structured_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = walk(tmp_path / "run", bound())
    results = read_results(path)
    assert [name for name, *_ in results[-1].per_tensor] == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "4.weight",
        "4.bias",
    ]
    table = costs(results)
    assert table.header == ("stage", "steps", "parameters (of 195)", "file", "MACs (of 144)", "latency, eager")
    size = (path / QUARTER / "done" / "weights.safetensors").stat().st_size
    assert table.rows[2][:5] == (QUARTER, "6", "51 (26.15 %)", f"{size} B", "36 (25.00 %)")
    page = write_report(path)[0].read_text(encoding="utf-8")
    for words in ("51 of 195 parameters are left", "36 of 144 MACs", "that network's own", "](sparsity.png)"):
        assert words in page, words
    assert "masks" not in page and "prunable parameters" not in page
    evaluate_run(path, [], stage=None, device="cpu")
    measured = [result.means("mse")[0].value for result in results]
    assert f"{measured[-1]:.4g}" in capsys.readouterr().out


def test_densities_are_shares_of_all_parameters_or_of_all_multiply_adds() -> None:
    for of in ("prunable", "all"):
        assert [target for stage in bound(f"strategy.of={of}").plan for _, target in stage.prune_at] == [
            Density(0.5),
            Density(0.25),
        ]
    rate = bound("strategy.schedule={name: rate, rate: 0.2}", "strategy.of=all")
    assert rate.plan[0].prune_at[0][1] == Rate(0.2)
    job = bound()
    cost = {"0.weight": 96, "0.bias": 0, "1.weight": 0, "1.bias": 0, "4.weight": 48, "4.bias": 0, "": 0}
    assert job.plan[0].prune_at[0][1] == MacDensity(0.5, cost, 0)
    assert job.kept == (None, None)
    assert asked_texts(job.plan) == {
        DENSE: "",
        HALF: "at most 50.00% of MACs",
        QUARTER: "at most 25.00% of MACs",
    }


@pytest.mark.parametrize(
    "overrides",
    [
        ("strategy.schedule.density=0.01",),  # the first round alone could be met
        ("strategy.of=prunable", "strategy.schedule={name: rate, rate: 0.5}", "strategy.rounds=9"),
        ("strategy={name: at_init, density: 0.01}",),
    ],
)
def test_a_target_that_no_shape_meets_is_refused_before_training(overrides: tuple[str, ...]) -> None:
    with pytest.raises(SelectionError, match="even 1 units are more"):
        bound(*overrides)


def test_a_cut_within_a_training_is_refused_and_one_before_it_is_not(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"stage 00-0\.2500 cuts at step 2, within its training.*optimiser.*iterative"
    ):
        bound("strategy={name: gradual, schedule: {name: linear, density: 0.25}, begin: 2, end: 8, every: 3}")
    path = walk(tmp_path, bound("strategy={name: at_init, density: 0.5}"))
    assert weights(path, HALF)["0.weight"].shape == (7, 6)
    assert shape(path, HALF) == shape(path, DENSE, "next")


def test_the_example_input_is_handed_to_the_pruner() -> None:
    data = task_data(bound().task, torch.device("cpu"))
    assert data.example.shape == (1, 6) and data.first(1).example is data.example


@pytest.mark.slow
def test_the_groups_that_are_found_by_tracing_are_cut_by_recipe(tmp_path: Path) -> None:
    declared = "declared: {'torch.nn.modules.activation:ReLU': {keep: []}}"
    prune = f"prune={{name: structured, scorer: magnitude, multiple: 2, {declared}}}"
    job = bound(prune, "task.steps=2", "strategy.rewind=init", "strategy.rounds=1")
    assert job.recipe.prune.options["declared"] == {"torch.nn.modules.activation:ReLU": {"keep": []}}
    assert bind_job(job.recipe, REGISTRY).recipe == job.recipe
    path = walk(tmp_path, job)
    assert len(shape(path, AT_ONCE).indices["0.weight"][0]) == 4
    assert read_json(path / AT_ONCE / "done" / "stage.json")["macs_kept"] == 36
