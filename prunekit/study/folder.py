"""A study's directory: ``study.yaml``, and for every seed a run directory and a recipe file for each arm."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import yaml

from prunekit.errors import RunError
from prunekit.files import read_json, write_json, write_text
from prunekit.recipe import Recipe
from prunekit.store import check_same, read_recipe_file
from prunekit.study.arms import ARMS, Arm, Base
from prunekit.study.process import MARK
from prunekit.study.single import Each, single_arms
from prunekit.study.walk import Work

HELD, FAILED = "study.yaml", "failed.json"
MARGIN = 0.1


@final
@dataclass(frozen=True)
class Asked:
    """What a study was last asked for, which its reports go by.

    Args:
        arms: of all tasks, by name.
        margin: by how much a ticket may be worse than the dense network, in the unit of the first metric.
        each: the tasks that are looked at alone, if any.
    """

    arms: tuple[str, ...] = tuple(ARMS)
    margin: float = MARGIN
    each: Each | None = None

    def held(self) -> dict[str, Any]:
        """Return it as ``study.yaml`` has it."""
        each = None if self.each is None else {"option": self.each.option, "values": list(self.each.values)}
        return {"arms": list(self.arms), "margin": self.margin, "each": each}

    def all_arms(self) -> dict[str, Arm]:
        """Return the arms by name, those of single tasks last."""
        return {name: ARMS[name] for name in self.arms} | (single_arms(self.each) if self.each else {})


def read_asked(folder: Path) -> Asked:
    """Read it from a study's directory; raises RunError where that is damaged."""
    try:
        held = yaml.safe_load((folder / HELD).read_text(encoding="utf-8"))
        alone = held.get("each")
        each = None if alone is None else Each(str(alone["option"]), tuple(map(str, alone["values"])))
        arms = tuple(name for name in ARMS if name in held.get("arms", ARMS))
        return Asked(arms, float(held.get("margin", MARGIN)), each)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as cause:
        raise RunError(f"{folder / HELD} is damaged: is {folder} a study directory?") from cause


def write_failed(folder: Path, failed: Mapping[tuple[str, int], str]) -> None:
    """Keep (arm, seed) -> why it failed, of the last walk."""
    write_json(folder / FAILED, [[arm, seed, why] for (arm, seed), why in sorted(failed.items())])


def read_failed(folder: Path) -> dict[tuple[str, int], str]:
    """Read it; nothing where nothing is kept. Raises RunError where the file is damaged."""
    file = folder / FAILED
    try:
        return {(str(arm), int(seed)): str(why) for arm, seed, why in read_json(file)} if file.exists() else {}
    except (RunError, ValueError, TypeError) as cause:
        raise RunError(f"{file} is damaged: delete it, and give the study's command again.") from cause


def refuse_strangers(folder: Path) -> None:
    """Raise RunError for a directory that is something else's; nothing is written."""
    if not folder.is_dir() or (folder / HELD).exists():
        return
    strangers = [path.name for path in folder.iterdir() if path.name[0] != "." and path.name != "lock"]
    if strangers:
        raise RunError(f"{folder} holds {strangers[0]!r} and no {HELD}: not a study; choose another --out.")


def open_study(folder: Path, base: Base, asked: Asked = Asked()) -> None:
    """Make the directory, or check that it holds a study of the same recipe and k; one that was moved is mended.

    What was asked for is kept beside them, for the reports to come.

    Raises:
        RunError: it holds another study, or something else.
    """
    file, here = folder / HELD, os.path.abspath(folder)  # noqa: PTH100  (links stay as they are)
    refuse_strangers(folder)
    if file.exists():
        try:
            held = yaml.safe_load(file.read_text(encoding="utf-8"))
            recipe, k, before = Recipe.model_validate(held["recipe"]), int(held["k"]), str(held["folder"])
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as cause:
            raise RunError(f"{file} is damaged: is {folder} a study directory?") from cause
        _check(folder, base, recipe, k)
        if before != here:
            _moved(folder, before, here)
    held = {"folder": here, "k": base.k, **asked.held(), "recipe": base.recipe.model_dump()}
    write_text(file, yaml.safe_dump(held, sort_keys=False))


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
    for file in [*folder.glob("seed-*/*/recipe.yaml"), *folder.glob(f"seed-*/*{MARK}")]:
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
