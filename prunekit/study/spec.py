"""What a study is asked for: a YAML file with the key ``recipe``, or a recipe and options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prunekit.errors import RecipeError, nearest
from prunekit.study.arms import ARMS, choose


@final
class Study(BaseModel):
    """All that decides the result of a study, beside the recipe itself.

    Args:
        recipe: a registered name or a YAML file.
        overrides: ``key.sub=value`` of the recipe.
        arms: names; what an arm needs is added.
        seeds: how many, from the recipe's on.
        k: step that ``imp-k`` rewinds to; None takes a twentieth of the training.
        margin: how much worse than dense is as good, in the unit of the first metric.
        each: ``task.OPTION=NAME,NAME,...``: the tasks that are looked at alone, too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    recipe: str
    overrides: tuple[str, ...] = ()
    arms: tuple[str, ...] = tuple(ARMS)
    seeds: int = Field(default=3, ge=1, strict=True)
    k: int | None = Field(default=None, strict=True)
    margin: float = Field(default=0.1, gt=0, allow_inf_nan=False, strict=True)
    each: str | None = None


def read_study(name: str, overrides: Sequence[str], given: Mapping[str, Any]) -> Study:
    """Read a study: from a file, or of a recipe; what is given on the command line goes before what a file says.

    Args:
        name: a study file, a recipe file, or a recipe's registered name.
        overrides: of the recipe; they come after the file's.
        given: option -> value, None where it was not given.

    Raises:
        RecipeError: a file with an unknown key or a wrong value, or an option with a wrong one.
    """
    held = _held(name)
    study = _checked(held, f"study {name}: ", "") if held else Study(recipe=name)
    chosen = {key: value for key, value in given.items() if value is not None}
    return _checked({**study.model_dump(), **chosen, "overrides": (*study.overrides, *overrides)}, "", "--")


def _held(name: str) -> dict[str, Any] | None:
    """Return what a study file says, or None for a recipe, which whoever reads recipes will read."""
    if not name.endswith((".yaml", ".yml")):
        return None
    try:
        tree = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return tree if isinstance(tree, dict) and "recipe" in tree else None


def _checked(tree: Mapping[str, Any], where: str, dashes: str) -> Study:
    for key in tree:
        if key not in Study.model_fields:
            raise RecipeError(f"{where}there is no key {key!r}: {nearest(str(key), Study.model_fields)}")
    try:
        study = Study.model_validate(tree)
        choose(study.arms)
        return study
    except RecipeError as cause:
        raise RecipeError(f"{where}{dashes}{cause}") from None
    except ValidationError as cause:
        problem = cause.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise RecipeError(f"{where}{dashes}{key}: {problem['msg']} (got {problem['input']!r}).") from cause
