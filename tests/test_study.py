"""Studies: which arms, with which budgets; what differences decide; and runs that fail, stop and go on."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from prunekit.cli.study import run_study
from prunekit.cli.study_verb import StudyAsked
from prunekit.errors import Failed, PruneKitError, RecipeError, RunError
from prunekit.files import write_json
from prunekit.job import bind_job
from prunekit.plan import Rewind, Stage, dense
from prunekit.recipe import read_recipe
from prunekit.registry import Registry
from prunekit.study import process
from prunekit.study.arms import ARMS, Base, base_of, choose
from prunekit.study.budget import plans_of, refuse_shapes, refuse_unequal, steps_of
from prunekit.study.folder import Asked, open_study, plan_works, read_asked, read_failed, write_failed
from prunekit.study.single import Each

TESTS = Path(__file__).parent
TOY = str(TESTS / "toy.yaml")
REGISTRY = Registry.discover([])
EACH = Each("tasks", ("a", "b"))


def base(*overrides: str, k: int | None = None) -> Base:
    return base_of(bind_job(read_recipe(TOY, ["task.steps=40", *overrides], REGISTRY), REGISTRY), k)


def test_an_arm_brings_what_it_needs_and_dense() -> None:
    assert list(choose(["one-shot"])) == ["dense", "one-shot"]
    assert list(choose(["reinit", "random"])) == ["dense", "imp", "random", "reinit"]
    with pytest.raises(RecipeError, match=r"no arm 'shufled': did you mean 'shuffled'\?"):
        choose(["imp", "shufled"])
    with pytest.raises(RecipeError, match="name at least one"):
        choose([])


def test_every_arm_ends_with_one_training_after_its_last_cut(tmp_path: Path) -> None:
    shared = base(k=4)
    found = {}
    for arm in ARMS:
        if not ARMS[arm].of_ticket:  # those name one that is not there
            plan = bind_job(ARMS[arm].recipe(shared, tmp_path), REGISTRY).plan
            found[arm] = [(stage.start.weights, stage.start.clock, stage.end) for stage in plan]
    trained = (0, 0, 40)
    assert found == {
        "dense": [trained],
        "imp": [trained] * 3,
        "imp-k": [trained, (4, 4, 40), (4, 4, 40)],
        "lr-rewind": [trained, (None, 0, 40), (None, 0, 40)],
        "one-shot": [trained, (None, 0, 40)],
        "random": [(0, 0, 0), trained],
    }
    shuffled = ARMS["shuffled"].recipe(shared, tmp_path)
    assert shuffled.prune.options["scorer"] == {"name": "ticket", "masks": str(tmp_path / "imp"), "shuffle": 0}
    assert ARMS["reinit"].recipe(shared, tmp_path).strategy.options["rewind"] == "reinit:1000003"


def test_arms_without_a_common_budget_are_refused() -> None:
    shared = base(k=4)
    refuse_unequal({"dense": dense(40), "imp-k": (Stage("01", Rewind(4, 4), 40),)}, shared)
    with pytest.raises(RecipeError, match="share no budget: after the last cut 40 steps .*: imp 30"):
        refuse_unequal({"dense": dense(40), "imp": (Stage("01", Rewind(0, 10), 40),)}, shared)


def test_the_steps_of_a_study_count_a_shared_dense_training_once() -> None:
    shared, arms = base(k=4), choose(["imp", "imp-k", "shuffled"])
    plans = plans_of(arms, shared, REGISTRY)
    assert steps_of(plans, arms, seeds=3) == 3 * (40 + 2 * 40 + 2 * 36 + 40)


def test_channels_leave_no_masks_to_take_over() -> None:
    overrides = ["task.steps=40", "prune={name: structured, scorer: magnitude}"]
    job = bind_job(read_recipe(TOY, overrides, REGISTRY), REGISTRY)
    refuse_shapes(job, choose(["imp", "random", "lr-rewind"]))
    with pytest.raises(RecipeError, match="removes whole channels, .* that shuffled, reinit could take over"):
        refuse_shapes(job, choose(["shuffled", "reinit"]))


@pytest.mark.parametrize(
    ("overrides", "k", "message"),
    [
        (["strategy={name: one_shot, density: 0.5, finetune: 3}"], None, "strategy is one_shot"),
        (["prune.scorer=movement"], None, "does not watch that training"),
        ([], 40, "k is 40: it must lie within the training, above 0 and below 40"),
    ],
)
def test_recipes_that_cannot_be_studied(overrides: list[str], k: int | None, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        base(*overrides, k=k)


def test_seeds_count_on_from_the_recipes(tmp_path: Path) -> None:
    works = plan_works(tmp_path, base("seed=5"), choose(["shuffled"]), 2)
    names = [(work.arm, work.seed, work.recipe) for work in works]
    assert names == [
        (arm, seed, tmp_path / f"seed-{seed}" / f"{arm}.yaml")
        for seed in (5, 6)
        for arm in ("dense", "imp", "shuffled")
    ]
    assert read_recipe(str(names[-1][2]), [], REGISTRY).prune.options["scorer"]["shuffle"] == 6


def test_a_directory_of_another_study_is_refused(tmp_path: Path) -> None:
    open_study(tmp_path / "study", base())
    open_study(tmp_path / "study", base())
    with pytest.raises(RunError, match="a study of another recipe .task.steps: 40 there, 50 now"):
        open_study(tmp_path / "study", base("task.steps=50", k=2))
    with pytest.raises(RunError, match="a study with k = 2, not 3"):
        open_study(tmp_path / "study", base(k=3))
    (tmp_path / "study" / "study.yaml").write_text("k: 2")
    with pytest.raises(RunError, match=r"study.yaml is damaged: is .* a study directory"):
        open_study(tmp_path / "study", base())
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".study.yaml.tmp").touch()  # all that a study killed at its very beginning leaves
    open_study(tmp_path / "killed", base())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(RunError, match=r"holds 'letter.txt' and no study.yaml"):
        open_study(tmp_path / "mine", base())


def test_runs_of_a_moved_study_name_the_ticket_where_it_is(tmp_path: Path) -> None:
    open_study(tmp_path / "here", base())
    (shuffled,) = (
        work for work in plan_works(tmp_path / "here", base(), choose(["shuffled"]), 1) if work.after == "imp"
    )
    shuffled.run.mkdir()
    text = shuffled.recipe.read_text()
    (shuffled.run / "recipe.yaml").write_text(text)
    (shuffled.run / "00" / "done").mkdir(parents=True)
    write_json(shuffled.run / "plan.json", [{"name": "00", "end": 2, "clock": 0}])
    shuffled.run.with_suffix(".done").write_text(text)
    there = (tmp_path / "here").rename(tmp_path / "there")
    open_study(there, base())
    works = plan_works(there, base(), choose(["shuffled"]), 1)
    assert process.finished(works[-1])  # and is not begun again
    moved = text.replace(str(tmp_path / "here" / "seed-0"), str(there / "seed-0"))
    assert (there / "seed-0/shuffled/recipe.yaml").read_text() == moved != text
    assert (there / "seed-0/shuffled.yaml").read_text() == moved


def test_what_was_last_asked_for_is_kept(tmp_path: Path) -> None:
    open_study(tmp_path / "study", base())
    assert read_asked(tmp_path / "study") == Asked(tuple(ARMS), 0.1, None)
    open_study(tmp_path / "study", base(), Asked(("dense", "imp"), 0.01, EACH))
    assert read_asked(tmp_path / "study") == Asked(("dense", "imp"), 0.01, EACH)
    assert list(read_asked(tmp_path / "study").all_arms())[:3] == ["dense", "imp", "dense-on-a"]


def test_why_runs_failed_is_kept(tmp_path: Path) -> None:
    assert read_failed(tmp_path) == {}
    write_failed(tmp_path, {("imp", 1): "no memory"})
    assert read_failed(tmp_path) == {("imp", 1): "no memory"}
    (tmp_path / "failed.json").write_text("[[1]]")
    with pytest.raises(RunError, match=r"failed\.json is damaged: delete it"):
        read_failed(tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"arms": ["imp", "winner"]}, "--arms: there is no arm 'winner'"),
        ({"arms": []}, "--arms: name at least one of dense"),
        ({"seeds": 0}, r"--seeds: Input should be greater than or equal to 1 \(got 0\)"),
        ({"margin": 0.0}, r"--margin: Input should be greater than 0 \(got 0.0\)"),
        ({"margin": math.nan}, "--margin: Input should be "),
        ({"each": "task.steps=1"}, "each: task.steps=1: write task.OPTION=NAME,NAME,... with two or more"),
        ({"each": "task.step=1,2"}, "has no option 'step': did you mean 'steps'"),
        ({"each": "task.steps=1,random"}, "neither 'all' nor 'random'"),
        ({"each": "task.steps=some,more"}, "task.steps: Input should be a valid integer"),
    ],
)
def test_mistakes_write_nothing(tmp_path: Path, given: dict[str, object], message: str) -> None:
    out = tmp_path / "study"
    with pytest.raises(RecipeError, match=message):
        run_study(TOY, [], StudyAsked(given, None, out, "cpu", None))
    assert not out.exists()


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(RunError, match=r"holds 'photo.jpg' and no study.yaml"):
        run_study(TOY, ["task.steps=4"], StudyAsked({"arms": ["dense"]}, None, tmp_path, "cpu", None))
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_study_of_which_nothing_was_finished_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "study"
    monkeypatch.setattr("prunekit.study.pools.do", lambda work, *_: "no memory")
    with pytest.raises(Failed, match="1 of 1 runs failed; the report says which"):
        run_study(TOY, ["task.steps=4"], StudyAsked({"arms": ["dense"], "seeds": 1}, None, out, "cpu", None))
    assert "* dense of seed 0: no memory" in (out / "report.md").read_text()
    assert read_failed(out) == {("dense", 0): "no memory"}


def test_what_a_report_needs_is_asked_for_before_days_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunekit.study.plots.find_spec", lambda name: None if name == "scipy" else name)
    with pytest.raises(PruneKitError, match=r'needs scipy: pip install "prunekit\[report\]"'):
        run_study(TOY, [], StudyAsked({}, None, None, "cpu", None))


def test_other_places_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "study"
    with pytest.raises(RecipeError, match="--device must be auto or cpu, not 'tpu'"):
        run_study(TOY, [], StudyAsked({}, None, out, "tpu", None))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PruneKitError, match=r'--ray needs Ray: pip install "prunekit\[ray\]"'):
        run_study(TOY, [], StudyAsked({}, None, out, "cpu", "auto"))
    assert not out.exists()
