"""The arms of single tasks: a dense network and a ticket for each, and every ticket trained on every task."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import yaml

from prunekit.errors import RecipeError, nearest
from prunekit.recipe import Recipe
from prunekit.study.arms import TICKET, Arm, Base, place

ALL, RANDOM = "all", "random"


@final
@dataclass(frozen=True)
class Each:
    """The tasks that are looked at alone.

    Args:
        option: of the recipe's task; a list of tasks' names.
        values: the names, two or more.
    """

    option: str
    values: tuple[str, ...]

    def dense(self, value: str) -> str:
        """Name the arm of the dense network of one task."""
        return f"dense-on-{value}"

    def ticket(self, value: str) -> str:
        """Name the arm that finds the ticket of one task."""
        return f"{TICKET}-on-{value}"

    def transfer(self, source: str, value: str) -> str:
        """Name the arm that trains another task's ticket, that of ``ALL``, or ``RANDOM`` places, on a task."""
        return f"{source}-to-{value}"


def read_each(text: str, recipe: Recipe) -> Each:
    """Read ``task.OPTION=NAME,NAME,...``.

    Args:
        text: as it was given.
        recipe: bound, so that it names every option of its task.

    Raises:
        RecipeError: it is none such, or the task has no such option.

    Example:
        >>> from prunekit.job import bind_job
        >>> from prunekit.registry import Registry
        >>> registry = Registry.discover([])
        >>> from prunekit.recipe import read_recipe
        >>> read_each("task.steps=a,b", bind_job(read_recipe("digits", [], registry), registry).recipe).values
        ('a', 'b')
    """
    key, sign, names = text.partition("=")
    option = key.removeprefix("task.")
    try:
        read = yaml.safe_load(names if names.lstrip().startswith("[") else f"[{names}]")
    except yaml.YAMLError:
        read = None
    values = tuple(map(str, read)) if isinstance(read, list) else ()
    if not sign or len(set(values)) < 2 or len(set(values)) != len(values):
        raise RecipeError(f"each: {text}: write task.OPTION=NAME,NAME,... with two or more different names.")
    if option not in recipe.task.options:
        raise RecipeError(
            f"each: {text}: the task {recipe.task.name!r} has no option {option!r}: "
            f"{nearest(option, recipe.task.options)}"
        )
    known = recipe.task.options[option]
    other = [value for value in values if isinstance(known, list | tuple) and value not in map(str, known)]
    if other:
        raise RecipeError(
            f"each: {text}: the recipe's task.{option} is without {other[0]!r}: {nearest(other[0], known)}"
        )
    strange = [value for value in values if not value.replace("_", "").replace("-", "").isalnum()]
    if strange or set(values) & {ALL, RANDOM}:
        raise RecipeError(f"each: {text}: a name is letters, digits, - and _, and neither {ALL!r} nor {RANDOM!r}.")
    return Each(option, values)


def single_arms(each: Each) -> dict[str, Arm]:
    """Return the arms by name: for each task those trained on it alone, whose tickets the later ones need first."""
    found: dict[str, Arm] = {}
    for value in each.values:
        on = partial(_on, each, value)
        found[each.dense(value)] = Arm(partial(on, Base.dense), None)
        found[each.ticket(value)] = Arm(partial(on, partial(Base.iterative, rewind="init")), each.dense(value))
    for value in each.values:
        on = partial(_on, each, value)
        found[each.transfer(RANDOM, value)] = Arm(partial(on, Base.random), None)
        sources = {ALL: TICKET} | {other: each.ticket(other) for other in each.values if other != value}
        for source, ticket in sources.items():
            found[each.transfer(source, value)] = Arm(partial(_transferred, each, value, ticket), ticket)
    return found


def _on(each: Each, value: str, make: Any, base: Base, _: Path) -> Recipe:
    made: Recipe = make(base.on({each.option: [value]}))
    return made


def _transferred(each: Each, value: str, ticket: str, base: Base, runs: Path) -> Recipe:
    return base.on({each.option: [value]}).at_init({"name": "ticket", "masks": place(runs, ticket)})
