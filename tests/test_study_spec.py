"""Study files: what they say, what the command line changes, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunekit.errors import RecipeError
from prunekit.recipe import read_recipe
from prunekit.registry import Registry
from prunekit.study.spec import Study, read_study

TEXT = """
recipe: digits
overrides: [task.steps=20]
arms: [imp, random]
seeds: 2
k: 5
margin: 0.01
"""


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(TEXT)
    said = read_study(str(file), [], {"arms": None, "seeds": None})
    assert said == Study(
        recipe="digits", overrides=("task.steps=20",), arms=("imp", "random"), seeds=2, k=5, margin=0.01
    )
    changed = read_study(str(file), ["seed=3"], {"seeds": 4, "each": "task.tasks=a,b", "margin": None})
    assert changed.overrides == ("task.steps=20", "seed=3")
    assert (changed.seeds, changed.each, changed.margin) == (4, "task.tasks=a,b", 0.01)


def test_a_recipe_is_studied_with_all_arms_and_three_seeds() -> None:
    study = read_study("digits", [], {})
    assert (study.recipe, study.seeds, study.k, study.margin, study.each) == ("digits", 3, None, 0.1, None)
    assert study.arms == ("dense", "imp", "imp-k", "lr-rewind", "one-shot", "random", "shuffled", "reinit")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("margins: 0.2", r"study .*mine.yaml: there is no key 'margins': did you mean 'margin'\?"),
        ("seeds: none", r"study .*mine.yaml: seeds: Input should be a valid integer.* \(got 'none'\)"),
        ("arms: [imp, shufled]", r"study .*mine.yaml: arms: there is no arm 'shufled': did you mean 'shuffled'\?"),
        ("seeds: true", r"study .*mine.yaml: seeds: Input should be a valid integer \(got True\)"),
        ("overrides: task.steps=20", r"study .*mine.yaml: overrides: Input should be a valid tuple"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(f"recipe: digits\n{line}\n")
    with pytest.raises(RecipeError, match=message):
        read_study(str(tmp_path / "mine.yaml"), [], {})


def test_a_study_is_no_recipe_and_a_recipe_no_study(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(TEXT)
    with pytest.raises(RecipeError, match="it is a study and no recipe: prunekit study .*mine.yaml"):
        read_recipe(str(tmp_path / "mine.yaml"), [], Registry.discover([]))
    (tmp_path / "recipe.yaml").write_text("task: digits\nprune: unstructured\nstrategy: dense\n")
    assert read_study(str(tmp_path / "recipe.yaml"), [], {}).recipe == str(tmp_path / "recipe.yaml")
