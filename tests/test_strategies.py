"""Strategies and controls as recipes spell them, walked on the toy task."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from test_execute import REGISTRY, TOY, Notes, assert_ticket, fresh_accelerate, masks, walk, weights
from torch import nn

import prunekit as pk
from prunekit.errors import Interrupted, PruneKitError
from prunekit.execute import Execution
from prunekit.job import bind_job, expected
from prunekit.measure import count_macs
from prunekit.recipe import read_recipe
from prunekit.registry import BUILT_IN
from prunekit.rewind import snapshot
from prunekit.store import Run, stored_plan

__all__ = ["fresh_accelerate"]  # a fixture, used by every test here

GRADUAL = "strategy={name: gradual, schedule: {name: cubic, density: 0.25}, begin: 2, end: 8, every: 3}"
AT_INIT = "strategy={name: at_init, density: 0.25}"
DATA_SCORERS = sorted(set(BUILT_IN["scorer"]) - {"magnitude", "random", "ticket", "repeated", "movement"})


@pytest.mark.parametrize("scorer", [*DATA_SCORERS, "{name: repeated, scorer: snip, times: 4}"])
def test_pruning_at_initialisation_by_every_scorer(tmp_path: Path, scorer: str) -> None:
    job, path = walk(tmp_path, AT_INIT, f"prune.scorer={scorer}")
    assert [(stage.name, stage.end) for stage in job.plan] == [("00-1.0000", 0), ("01-0.2500", 10)]
    assert masks(path, "01-0.2500").kept == 36
    origin = snapshot(job.model())
    assert_ticket(weights(path, "00-1.0000"), origin, pk.Masks.dense(job.model()))
    found = weights(path, "01-0.2500")
    for name, (kept, _) in masks(path, "01-0.2500").per_tensor().items():
        assert int(torch.count_nonzero(found[name])) <= kept


def test_a_reinitialised_control_starts_from_another_seed_and_keeps_the_data(tmp_path: Path) -> None:
    job, path = walk(tmp_path, "strategy={name: at_init, density: 0.25, rewind: 'reinit:7'}", "task.steps=1")
    with torch.random.fork_rng():
        torch.manual_seed(7)
        other = snapshot(job.task.model())
    lines = (path / "01-0.2500" / "log.jsonl").read_text()
    assert '"clock": 0' in lines and stored_plan(job.plan)[1]["reinit"] == 7
    start = job.model(seed=7)
    assert all(torch.equal(each, other[name]) for name, each in snapshot(start).items())
    cut = masks(path, "01-0.2500")
    cut.apply_(start)
    moved = weights(path, "01-0.2500")["0.weight"] - snapshot(start)["0.weight"]
    assert 0 < moved.abs().max() < 0.02  # one step of AdamW at 0.01 away from it


@pytest.mark.slow
def test_shuffled_and_random_controls_keep_the_counts_of_a_run(tmp_path: Path) -> None:
    _, path = walk(tmp_path / "imp")
    ticket = masks(path, "02-0.2500")
    scorer = f"prune.scorer={{name: ticket, masks: {path}, shuffle: 1}}"
    _, control = walk(tmp_path / "shuffled", AT_INIT, scorer)
    assert masks(control, "01-0.2500").per_tensor() == ticket.per_tensor()
    assert masks(control, "01-0.2500") != ticket
    _, same = walk(tmp_path / "same", AT_INIT, f"prune.scorer={{name: ticket, masks: {path}}}")
    assert masks(same, "01-0.2500") == ticket
    _, chance = walk(tmp_path / "random", AT_INIT, "prune.scorer={name: random, seed: 3}")
    assert masks(chance, "01-0.2500").kept == ticket.kept


def test_one_shot_fine_tunes_with_the_last_rates(tmp_path: Path) -> None:
    job, path = walk(tmp_path, "strategy={name: one_shot, density: 0.25, finetune: 3}")
    assert [(stage.name, stage.start.weights, stage.start.clock) for stage in job.plan] == [
        ("00-1.0000", 0, 0),
        ("01-0.2500", None, 7),
    ]
    lines = (path / "01-0.2500" / "log.jsonl").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ['{"clock": 7', '{"clock": 8', '{"clock": 9']


def test_movement_is_gathered_through_every_cut(tmp_path: Path) -> None:
    _, path = walk(tmp_path, GRADUAL, "prune.scorer=movement")
    cut = masks(path, "00-0.2500")
    assert cut.kept == 36
    _, other = walk(tmp_path / "magnitude", GRADUAL)
    assert masks(other, "00-0.2500") != cut
    iterative = "strategy={name: iterative, schedule: {name: cosine, density: 0.25}, rounds: 2, rewind: 'lr:5'}"
    _, path = walk(tmp_path / "imp", iterative, "prune.scorer=movement")
    assert masks(path, "02-0.2500").kept == 36


def test_a_target_on_multiply_adds_is_met_from_below(tmp_path: Path) -> None:
    options = "{name: iterative, schedule: {name: geometric, density: 0.25}, rounds: 2, rewind: init, of: macs}"
    job, path = walk(tmp_path, f"strategy={options}")
    assert [stage.name for stage in job.plan] == ["00-1.0000", "01-0.5000", "02-0.2500"]
    for stage, share in (("01-0.5000", 0.5), ("02-0.2500", 0.25)):
        macs = count_macs(job.model(), job.task.example(), masks(path, stage))
        assert macs.kept <= share * macs.dense < macs.kept + 1  # a weight of the toy is one multiply-add
    assert stored_plan(job.plan)[0]["prune_at"] == [[10, "MacDensity", 0.5]]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["prune.allocation=n_of_m"], r"'0.weight' to have a second axis that divides by 4"),
        (
            ["prune.allocation=n_of_m", "prune.exclude=[0.*]", AT_INIT],
            "2:4 keeps 24 of 48 weights and no other number; 12 were asked",
        ),
        (["prune.scorer=python:rude:names"], "no score for '0.weight'"),
        (["prune.scorer=python:rude:nan"], "the score of '0.weight' holds NaN"),
        (["prune.scorer=python:rude:shapes"], r"the score of '0.weight' is torch.float32 of shape \(1,\)"),
        (["prune.allocation=python:rude:reviving"], "revives weights of"),
        (["strategy.schedule=python:rude:rising"], "the schedule goes from 0.5 to 0.9"),
        (["strategy.schedule=python:rude:nothing"], "the schedule goes from 1 to 0: densities lie above 0"),
        (["strategy.of=macs", "strategy.schedule={name: rate, rate: 0.2}"], "a rate is a share of the survivors"),
        (["strategy.of=all", "strategy.schedule={name: rate, rate: 0.2}"], "a rate is a share of the survivors"),
        (["strategy={name: at_init, density: 0.25, rewind: 'reinit:x'}"], "is not one of init, step:K"),
        (["strategy={name: one_shot, density: 0.25, finetune: 500}"], "the training has 20 steps only"),
        (["prune.scorer=movement", AT_INIT], "stage 00-1.0000 cuts at step 0, before it has trained: train first"),
        (
            ["prune.scorer=movement", "strategy={name: one_shot, density: 0.2, finetune: 3, dense: false}"],
            "cuts at step",
        ),
        (["prune.scorer=movement", GRADUAL.replace("begin: 2", "begin: 0")], "looks at how training moves the weights"),
        (
            ["strategy.of=macs", "prune.allocation={name: per_layer, rates: {'*': 0.5}}"],  # half is met, a quarter not
            "no cut of this allocation leaves 25.00% of the multiply-adds",
        ),
        (["prune.scorer={name: repeated, scorer: magnitude, times: 3}"], "only a scorer that looks at data"),
        (["prune.scorer={name: random}"], r"prune.scorer.seed is missing"),
    ],
)
def test_refused_before_anything_is_trained(overrides: list[str], message: str) -> None:
    with pytest.raises(PruneKitError, match=message):
        bind_job(read_recipe(TOY, overrides, REGISTRY), REGISTRY)


@pytest.mark.parametrize(
    ("overrides", "densities"),
    [
        (["prune.allocation={name: per_layer, rates: {'4.*': 0.5}}"], [(144, 144), (84, 84), (54, 54)]),
        ([GRADUAL], [(144, 36)]),
        ([AT_INIT], [(144, 144), (36, 36)]),
    ],
)
def test_a_plan_tells_what_the_run_then_keeps(
    tmp_path: Path, overrides: list[str], densities: list[tuple[int, int]]
) -> None:
    job, path = walk(tmp_path, *overrides)
    assert [(round(144 * a), round(144 * b)) for a, b in expected(job.plan, job.kept, 144)] == densities
    assert [masks(path, stage.name).kept for stage in job.plan] == [after for _, after in densities]


def test_tied_weights_share_one_mask_through_a_whole_loop() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode, self.decode = nn.Linear(6, 6), nn.Linear(6, 6)
            self.decode.weight = self.encode.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.decode(self.encode(x).relu())

    torch.manual_seed(0)
    model = Tied()
    keys, start, cut = list(model.state_dict()), pk.snapshot(model), pk.Masks.dense(model)
    assert list(cut) == ["encode.weight"]
    data = pk.Calibration([torch.randn(4, 6)], lambda net, x: (net(x) - x).square().mean())
    factories = (pk.magnitude, pk.lamp, pk.snip, pk.grasp, pk.fisher, pk.taylor, pk.synflow, pk.wanda)
    for scorer in (factory() for factory in factories):
        cut = pk.Masks.dense(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for density in (0.5, 0.25):
            cut = pk.prune(model, cut, density, scorer=scorer, data=data)
            pk.restore(model, start, cut)
            with pk.hold(model, cut):
                next(data.losses(model)).backward()
                optimizer.step()
        assert cut.kept == 9 and model.decode.weight is model.encode.weight
        assert int(torch.count_nonzero(model.state_dict()["decode.weight"])) == 9
    assert list(model.state_dict()) == keys


def test_weights_of_another_network_are_refused_with_their_keys(tmp_path: Path) -> None:
    torch.save({"net.0.weight": torch.zeros(16, 6), "net.9.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(PruneKitError, match=r"missing: 0.bias.*1 unexpected: 9.weight"):
        bind_job(read_recipe(TOY, [f"weights={tmp_path / 'other.pt'}"], REGISTRY), REGISTRY)


def test_movement_survives_stops_bit_for_bit(tmp_path: Path) -> None:
    overrides = (GRADUAL, "prune.scorer=movement")
    job, whole = walk(tmp_path / "whole", *overrides)
    stopped = tmp_path / "stopped"
    for _ in range(4):  # each time after two more steps: before, between and after the cuts
        asked = iter([False, True])
        with pytest.raises(Interrupted):
            Execution(job, Run(stopped), Accelerator(cpu=True), Notes(), lambda asked=asked: next(asked)).walk()
    walk(stopped, *overrides)
    assert masks(stopped, "00-0.2500") == masks(whole, "00-0.2500")
    for name, each in weights(whole, "00-0.2500").items():
        assert torch.equal(each, weights(stopped, "00-0.2500")[name])
