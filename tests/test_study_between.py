"""Tasks alone and together: which arms there are, and what their results say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_study_verdicts import arm

from prunekit.errors import RecipeError
from prunekit.files import write_tensors
from prunekit.job import bind_job
from prunekit.masks import Masks
from prunekit.recipe import read_recipe
from prunekit.registry import Registry
from prunekit.study.arms import base_of, choose
from prunekit.study.between import growth, interference, owners, transfers
from prunekit.study.budget import plans_of, refuse_unequal, steps_of
from prunekit.study.folder import Asked
from prunekit.study.measured import Results
from prunekit.study.overlap import Overlap, Shared, overlaps
from prunekit.study.page import write_study_report
from prunekit.study.results import ArmResult
from prunekit.study.single import Each, read_each, single_arms
from prunekit.study.stats import Difference
from prunekit.study.tables import overlapping

REGISTRY = Registry.discover([])
RECIPE = str(Path(__file__).parent / "two_tasks.yaml")
EACH = Each("tasks", ("a", "b"))


def test_every_ticket_goes_to_every_other_task(tmp_path: Path) -> None:
    base = base_of(bind_job(read_recipe(RECIPE, ["task.steps=40", "seed=3"], REGISTRY), REGISTRY), None)
    each = read_each("task.tasks=[sum, gap]", base.recipe)
    with pytest.raises(RecipeError, match="the recipe's task.tasks is without 'gasp'.*gap"):
        read_each("task.tasks=sum,gasp", base.recipe)
    arms = single_arms(each)
    assert {name: found.after for name, found in arms.items()} == {
        "dense-on-sum": None,
        "imp-on-sum": "dense-on-sum",
        "dense-on-gap": None,
        "imp-on-gap": "dense-on-gap",
        "random-to-sum": None,
        "all-to-sum": "imp",
        "gap-to-sum": "imp-on-gap",
        "random-to-gap": None,
        "all-to-gap": "imp",
        "sum-to-gap": "imp-on-sum",
    }
    recipe = arms["gap-to-sum"].recipe(base, tmp_path)
    assert recipe.task.options["tasks"] == ["sum"]
    assert recipe.strategy.model_dump()["name"] == "at_init"
    assert recipe.prune.options["scorer"] == {"name": "ticket", "masks": str(tmp_path / "imp-on-gap")}
    assert arms["imp-on-gap"].recipe(base, tmp_path).task.options["tasks"] == ["gap"]
    arms = choose(["imp"]) | arms
    plans = plans_of(arms, base, REGISTRY)
    refuse_unequal(plans, base)
    assert steps_of(plans, arms, seeds=2) == 2 * 40 * (3 * (1 + 2) + 6)  # dense and two rounds; transfers


def on(name: str, task: str, value: float, density: float = 0.1) -> ArmResult:
    """Return an arm that is measured on one task, where lower is better."""
    found = arm(name, value, higher=False)
    stages = {
        seed: [
            replace(
                stage,
                remaining=round(100 * density),
                measures=tuple(replace(measure, task=task) for measure in stage.measures),
            )
            for stage in held
        ]
        for seed, held in found.stages.items()
    }
    return replace(found, stages=stages)


def both(name: str, a: ArmResult, b: ArmResult) -> ArmResult:
    """Return an arm that is measured as two others are together."""
    stages = {
        seed: [
            replace(mine, measures=mine.measures + other.measures)
            for mine, other in zip(held, b.stages[seed], strict=True)
        ]
        for seed, held in a.stages.items()
    }
    return replace(a, name=name, stages=stages)


def known() -> dict[str, ArmResult]:
    found = [
        both("dense", on("x", "a", 5.0, 1.0), on("x", "b", 5.0, 1.0)),
        both("imp", on("x", "a", 7.0), on("x", "b", 6.0)),
        *(on(f"dense-on-{task}", task, 4.0, 1.0) for task in "ab"),
        *(on(f"imp-on-{task}", task, 6.5) for task in "ab"),
        on("b-to-a", "a", 4.25),
        on("all-to-a", "a", 4.5),
        on("random-to-b", "b", 9.0),
    ]
    return {result.name: result for result in found}


def test_tickets_are_compared_with_the_dense_network_of_the_task_that_they_are_trained_on() -> None:
    found = {
        source: [(gap.arm, gap.against, gap.difference.mean) for gap in gaps]
        for source, gaps in transfers(EACH, known(), "m").items()
    }
    assert found == {
        "a": [("imp-on-a", "dense-on-a", 2.5)],
        "b": [("b-to-a", "dense-on-a", 0.25), ("imp-on-b", "dense-on-b", 2.5)],
        "all": [("all-to-a", "dense-on-a", 0.5)],
        "random": [("random-to-b", "dense-on-b", 5.0)],
    }


def test_tickets_are_compared_with_random_places_on_the_same_task() -> None:
    found = {
        source: [(gap.arm, gap.against, gap.difference.mean) for gap in gaps]
        for source, gaps in transfers(EACH, known(), "m", against="random").items()
    }
    assert found == {"b": [("imp-on-b", "random-to-b", -2.5)]}


def test_interference_grows_by_paired_differences() -> None:
    assert [(gap.group, gap.density, gap.difference) for gap in growth(EACH, known(), "m")] == [
        (("a", "d"), 0.1, Difference(-0.5, 0.0, 2, 3)),  # 7 - 6.5, less 5 - 4
        (("b", "d"), 0.1, Difference(-1.5, 0.0, 2, 3)),  # 6 - 6.5, less 5 - 4
    ]


def test_interference_is_told_at_equal_densities_dense_first() -> None:
    found = [
        [(gap.arm, gap.density, gap.against, gap.difference.mean) for gap in gaps]
        for gaps in interference(EACH, known(), "m")
    ]
    assert found == [
        [("dense", 1.0, "dense-on-a", 1.0), ("dense", 1.0, "dense-on-b", 1.0)],
        [("imp", 0.1, "imp-on-a", 0.5), ("imp", 0.1, "imp-on-b", -0.5)],
    ]


def test_a_task_that_all_single_networks_measure_is_nobodys() -> None:
    arms = known()
    assert owners(EACH, arms, "m") == {("a", "d"): "a", ("b", "d"): "b"}
    arms["dense-on-b"] = both("dense-on-b", arms["dense-on-b"], on("x", "a", 1.0, 1.0))
    assert owners(EACH, arms, "m") == {("b", "d"): "b"}


def kept(folder: Path, name: str, first: list[int], second: list[int]) -> ArmResult:
    masks = Masks({"one": torch.tensor(first, dtype=torch.bool), "two": torch.tensor(second, dtype=torch.bool)})
    write_tensors(folder / name / "cut.safetensors", masks.state_dict())
    found = arm(name, 1.0, seeds=1)
    return replace(found, stages={0: [replace(found.stages[0][0], folder=folder / name)]})


def test_what_tickets_have_in_common_beside_chance(tmp_path: Path) -> None:
    a = kept(tmp_path, "imp-on-a", [1, 1, 0, 0], [1, 0])
    b = kept(tmp_path, "imp-on-b", [1, 0, 1, 0], [1, 0])
    (found,) = overlaps(EACH, {"imp-on-a": a, "imp-on-b": b})
    assert found.seeds == {0: {"one": Shared(2, 2, 1, 1.0), "two": Shared(1, 1, 1, 0.5)}}
    (total,) = found.totals().values()
    assert total == Shared(3, 3, 2, 1.5)
    assert (total.of_either, total.chance) == (2 / 4, 1.5 / 4.5)
    (row,) = overlapping([found]).rows
    assert row[:3] == ("a, b", "50.0 %", "33.3 %")
    assert row[3:] == ("`two` 100.0 % (chance 33.3 %)", "`one` 33.3 % (chance 33.3 %)")


def test_equal_tickets_have_all_in_common_and_disjoint_ones_nothing() -> None:
    pair = Overlap("a", "b", {0: {"w": Shared(5, 5, 5, 2.5)}, 1: {"w": Shared(5, 5, 0, 2.5)}})
    assert [total.of_either for total in pair.totals().values()] == [1.0, 0.0]
    assert pair.layers()["w"].of_either == pytest.approx(pair.layers()["w"].chance)


def test_the_report_has_all_of_it(tmp_path: Path) -> None:
    arms = known()
    for name in ("imp", "imp-on-a", "imp-on-b"):
        masks = Masks({"one": torch.tensor([True, name == "imp"])})
        write_tensors(tmp_path / name / "cut.safetensors", masks.state_dict())
        stages = {seed: [replace(held[-1], folder=tmp_path / name)] for seed, held in arms[name].stages.items()}
        arms[name] = replace(arms[name], stages=stages)
    failed = {("a-to-b", 0): "it needs imp-on-a, which failed."}
    asked = Asked(("dense", "imp"), 0.1, EACH)
    files = write_study_report(Results(tmp_path, arms, failed, asked, "prunekit study x"))
    names = [
        "report.md",
        "study.csv",
        "verdicts.csv",
        "values.csv",
        "overlap.csv",
        "study.png",
        "interference.png",
        "overlap.png",
    ]
    assert [file.name for file in files] == names and all(file.stat().st_size for file in files)
    page = files[0].read_text()
    assert "* a-to-b of seed 0: it needs imp-on-a, which failed." in page
    assert "| imp | a | **no** | -2.0000 ± 0.0000 (no) | 0.0000 from dense |" in page
    assert "| none: random places | - | -5.0000 ± 0.0000 |" in page  # lower is better
    assert "| 10.00 % | -0.5000 ± 0.0000 | +0.5000 ± 0.0000 |" in page
    assert "| a, all | 50.0 % (50.0 to 50.0) | 50.0 % | `one` 50.0 % (chance 50.0 %) |" in page
    assert "imp,0.1,imp-on-b,b,d,m,-0.5,0.0,2,3" in files[1].read_text().splitlines()
    assert "imp,a,d,no,0.1,dense,-2.0,0.0,no" in files[2].read_text().splitlines()
    assert "imp-on-a,1,0.1,a,d,c,m,8.5" in files[3].read_text().splitlines()
    assert "a,b,0,one,1,1,1,1.0,0.3333333333333333" in files[4].read_text().splitlines()
    assert "| change, 100 % to 10.00 % | +0.5000 ± 0.0000 | +1.5000 ± 0.0000 |" in page  # lower is better
    assert "## Tickets on other tasks, beside random places: m" in page
