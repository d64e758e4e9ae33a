"""A study's directory: ``study.yaml``, and for every seed a run directory and a recipe file for each arm."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from prunekit.errors import RunError
from prunekit.files import write_text
from prunekit.recipe import Recipe
from prunekit.store import check_same, read_recipe_file
from prunekit.study.arms import Arm, Base
from prunekit.study.single import Each
from prunekit.study.walk import Work

HELD = "study.yaml"
MARGIN = 0.1


def open_study(folder: Path, base: Base, *, margin: float = MARGIN, each: Each | None = None) -> None:
    """Make the directory, or check that it holds a study of the same recipe and k; one that was moved is mended.

    The margin and the single tasks are kept beside them, for the reports to come.

    Raises:
        RunError: it holds another study, or something else.
    """
    file, here = folder / HELD, os.path.abspath(folder)  # noqa: PTH100  (links stay as they are)
    if not file.exists():
        strangers = (
            [path.name for path in folder.iterdir() if path.name[0] != "." and path.name != "lock"]
            if folder.is_dir()
            else []
        )
        if strangers:
            raise RunError(f"{folder} holds {strangers[0]!r} and no {HELD}: not a study; choose another --out.")
    alone = None if each is None else {"option": each.option, "values": list(each.values)}
    if file.exists():
        try:
            held = yaml.safe_load(file.read_text(encoding="utf-8"))
            recipe, k, before = Recipe.model_validate(held["recipe"]), int(held["k"]), str(held["folder"])
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as cause:
            raise RunError(f"{file} is damaged: is {folder} a study directory?") from cause
        _check(folder, base, recipe, k)
        if (before, held.get("margin"), held.get("each")) == (here, margin, alone):
            return
        if before != here:
            _moved(folder, before, here)
    held = {"folder": here, "k": base.k, "margin": margin, "each": alone, "recipe": base.recipe.model_dump()}
    write_text(file, yaml.safe_dump(held, sort_keys=False))


def asked_of(folder: Path) -> tuple[float, Each | None]:
    """Return the margin that a study was last asked to decide by, and the tasks that it was to look at alone."""
    try:
        held = yaml.safe_load((folder / HELD).read_text(encoding="utf-8"))
        alone = held.get("each")
        each = None if alone is None else Each(str(alone["option"]), tuple(map(str, alone["values"])))
        return float(held.get("margin", MARGIN)), each
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as cause:
        raise RunError(f"{folder / HELD} is damaged: is {folder} a study directory?") from cause


def _check(folder: Path, base: Base, recipe: Recipe, k: int) -> None:
    try:
        check_same(recipe, base.recipe, folder)
    except RunError as cause:
        raise RunError(
            str(cause).replace(", or --fresh to put it aside", "").replace("a run of", "a study of")
        ) from None
    if k != base.k:
        raise RunError(f"{folder} holds a study with k = {k}, not {base.k}; choose another --out.")


def _moved(folder: Path, before: str, here: str) -> None:
    """Let the runs that take over a ticket name it where it is now; their weights and masks are what they were."""
    for file in folder.glob("seed-*/*/recipe.yaml"):
        tree = read_recipe_file(file).model_dump()
        scorer = tree["prune"].get("scorer")
        if isinstance(scorer, dict) and str(scorer.get("masks", "")).startswith(before + os.sep):
            scorer["masks"] = here + scorer["masks"].removeprefix(before)
            write_text(file, yaml.safe_dump(tree, sort_keys=False))


def plan_works(folder: Path, base: Base, arms: Mapping[str, Arm], seeds: int) -> list[Work]:
    """Write each arm's recipe for each seed, and return the works in an order in which they can be done.

    Args:
        folder: the study's.
        base: its recipe; the seeds are the recipe's, the next one, and so on.
        arms: name -> arm, those that others need before them.
        seeds: how many.
    """
    works = []
    for seed in range(base.recipe.seed, base.recipe.seed + seeds):
        runs = folder / f"seed-{seed}"
        for name, arm in arms.items():
            recipe = arm.recipe(base.with_seed(seed), runs)
            file = runs / f"{name}.yaml"
            text = yaml.safe_dump(recipe.model_dump(), sort_keys=False)
            if not file.exists() or file.read_text(encoding="utf-8") != text:
                write_text(file, text)
            works.append(Work(name, seed, file, runs / name, arm.after))
    return works
