from __future__ import annotations

from pathlib import Path

import pytest

from prunekit.errors import PruneKitError, RecipeError
from prunekit.job import bind_job, expected
from prunekit.recipe import apply_overrides, read_recipe
from prunekit.registry import Registry

TOY = str(Path(__file__).with_name("toy.yaml"))
REGISTRY = Registry.discover([])


def test_overrides_reach_nested_options_and_bare_names() -> None:
    recipe = read_recipe(
        TOY, ["task.steps=7", "prune.allocation.min_keep=2", "prune.scorer={name: random, seed: 3}"], REGISTRY
    )
    assert recipe.task.options == {"steps": 7}
    assert recipe.prune.options["allocation"] == {"name": "everywhere", "min_keep": 2}
    assert recipe.prune.options["scorer"] == {"name": "random", "seed": 3}


def test_the_resolved_recipe_states_every_default_and_resolves_to_itself() -> None:
    recipe = bind_job(read_recipe(TOY, [], REGISTRY), REGISTRY).recipe
    assert recipe.task.options["workers"] == 0
    assert recipe.strategy.options["dense"] is True
    assert recipe.prune.options["allocation"] == {"name": "everywhere", "min_keep": 0}
    assert bind_job(recipe, REGISTRY).recipe == recipe
    assert recipe.digest() == apply_overrides(recipe, ["description=other"]).digest()
    assert recipe.digest() != apply_overrides(recipe, ["seed=1"]).digest()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tsk.steps=3", "no key 'tsk': did you mean 'task'"),
        ("task.step=3", r"task has no option 'step': did you mean 'steps'"),
        ("task.steps=many", r"task\.steps: .*integer.*got 'many'"),
        ("precision=fp16", r"precision: .*'fp32' or 'bf16'.*got 'fp16'"),
        ("prune.scorer=magnitud", "no scorer 'magnitud': did you mean 'magnitude'"),
        ("prune.scorer=random", r"prune\.scorer\.seed is missing"),
        ("strategy.schedule.density=0", "density must be above 0"),
        ("strategy.schedule.density=1.5", "density must be above 0 and at most 1"),
        ("strategy.schedule.densty=1", r"strategy\.schedule has no option 'densty': did you mean 'density'"),
        ("strategy.rounds=0", "rounds must be at least 1"),
        ("strategy.rewind=initial", "rewind: 'initial' is not one of"),
        ("strategy.of=total", "strategy.of must be one of prunable, all, macs"),
        ("strategy.name=iterativ", "no strategy 'iterativ': did you mean 'iterative'"),
        ("prune.include=[nothing*]", "matches no name"),
        ("prune.scorer.name=5", r"prune\.scorer\.name must be a text, not 5"),
        ("task=python:json:__name__", "names a str; give a function or a class"),
        ("seed=-1", "seed: .*greater than or equal to 0"),
        ("seed=99999999999999999999999", "seed: .*less than"),
        (
            "strategy={name: iterative, rounds: 5, schedule: {name: explicit, densities: [0.5, 0.1]}}",
            r"5 rounds, but the schedule gives only \[0\.5, 0\.1\]",
        ),
        (
            "strategy={name: iterative, rounds: 1, schedule: {name: linear, density: 1}, rewind: 'lr:2', keep: ['*']}",
            "rewinds no weights",
        ),
        ("seed", "must look like key.sub=value"),
        ("seed.x=1", "seed is 0 and has no keys below it"),
        ("task.name=python:toy:tooy", "toy has no 'tooy'; did you mean 'toy'"),
    ],
)
def test_mistakes_are_named_at_once(override: str, message: str) -> None:
    with pytest.raises(PruneKitError, match=message):
        bind_job(read_recipe(TOY, ["seed=0", override], REGISTRY), REGISTRY)


def test_an_unknown_recipe_and_bad_yaml(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no recipe 'mir'"):
        read_recipe("mir", [], REGISTRY)
    bad = tmp_path / "bad.yaml"
    bad.write_text("task: [")
    with pytest.raises(RecipeError, match="not valid YAML"):
        read_recipe(str(bad), [], REGISTRY)
    bad.write_text("- task")
    with pytest.raises(RecipeError, match="must be a mapping of keys, not list"):
        read_recipe(str(bad), [], REGISTRY)
    with pytest.raises(RecipeError, match="cannot be read"):
        read_recipe(str(tmp_path / "none.yaml"), [], REGISTRY)


def test_a_target_on_all_parameters_becomes_one_on_the_prunable() -> None:
    # 211 parameters: 96 + 48 weights are prunable, 67 are not; half of all leaves 106 - 67 = 39 of the 144.
    job = bind_job(
        read_recipe(TOY, ["strategy.of=all", "strategy.rounds=1", "strategy.schedule.density=0.5"], REGISTRY), REGISTRY
    )
    total = sum(parameter.numel() for parameter in job.model().parameters())
    prunable = 96 + 48
    (_, (_, after)) = expected(job.plan, job.kept, prunable)
    assert round(after * prunable) == round(total * 0.5) - (total - prunable)


def test_a_target_below_the_unprunable_share_names_that_share() -> None:
    with pytest.raises(PruneKitError, match=r"bias"):
        bind_job(read_recipe(TOY, ["strategy.of=all", "strategy.schedule.density=0.1"], REGISTRY), REGISTRY)
