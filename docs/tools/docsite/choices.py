"""Every registered scorer, allocation, schedule and strategy: formula, options, paper; tasks and pruners: options."""

import inspect
import re
from typing import Any

from docsite.api import linked, reference
from prunekit.registry import Registry

KINDS = {
    "scorer": ("Scorers", "the score of a weight w; higher is kept"),
    "allocation": ("Allocations", "what each tensor keeps of its scores s"),
    "schedule": ("Schedules", "the density at progress t, from 0 to 1; D is the last one"),
    "strategy": ("Strategies", "when to cut, and where training starts again"),
}
OF = """Every strategy takes `of`, too: what its densities are a share of, `prunable` parameters, `all` or `macs` (see
[the denominators](../explanation/denominators.md)).
"""
OPTIONS_ONLY = {"pruner": "Pruners", "task": "Tasks", "network": "Networks"}
HEAD = """---
hide: [toc]
---

# Scorers, allocations, schedules, strategies

Every choice that a recipe or a call can name: its formula, its options with their defaults (**bold** where there is
none), its paper. Made from the registry and the docstrings, plugins included. How to choose among them: [Choose what to
cut](../how-to/choose.md); what the choice is worth: [measured](../explanation/scorers.md).
"""


def section(thing: Any, title: str) -> str:
    """Return one section of a docstring as one line, or nothing."""
    found = re.search(rf"^{title}:\n((?:    .*\n?)+)", inspect.getdoc(thing) or "", re.MULTILINE)
    return " ".join(found.group(1).split()) if found else ""


def summary(thing: Any) -> str:
    """Return the first line of a docstring; of a partial function, that of the function."""
    return (inspect.getdoc(getattr(thing, "func", thing)) or "").partition("\n")[0]


def options(kind: str, thing: Any) -> str:
    """Return the options of a factory as a recipe spells them, those without a default in bold."""
    given = {"strategy": {"steps"}, "task": {"seed"}}.get(kind, set())  # not a recipe's to say there
    return ", ".join(
        f"**`{each.name}`**" if each.default is each.empty else f"`{each.name}: {_default(each.default)}`"
        for each in inspect.signature(thing).parameters.values()
        if each.name not in given
    ) + (", `of: prunable`" * (kind == "strategy"))


def pages() -> dict[str, str]:
    """Return the page."""
    registry = Registry.discover()
    chapters = [_chapter(registry, kind, *about) for kind, about in KINDS.items()]
    others = [_options(registry, kind, title) for kind, title in OPTIONS_ONLY.items()]
    return {"reference/choices.md": "\n".join([HEAD, *chapters, *others])}


def _chapter(registry: Registry, kind: str, title: str, meaning: str) -> str:
    rows = []
    for name in registry.names(kind):
        thing = registry.get(kind, name)
        cells = (section(thing, "Formula") or summary(thing), options(kind, thing), section(thing, "Reference"))
        rows.append(f"| {reference(name)} | {' | '.join(map(_cell, cells))} |")
    head = f"| name | {meaning} | options | paper |\n| --- | --- | --- | --- |"
    return "\n".join([f"## {title}\n", *([OF] if kind == "strategy" else []), head, *rows, ""])


def _options(registry: Registry, kind: str, title: str) -> str:
    rows = []
    for name in registry.names(kind):
        entry = registry.find(kind, name)
        thing = entry.load()
        made = getattr(thing, "func", thing)
        link = linked(name, f"{made.__module__}.{made.__qualname__}")
        rows.append(f"| {link} ({entry.distribution}) | {_cell(summary(thing))} | {_cell(options(kind, thing))} |")
    text = "What each option means stands where the name leads.\n"
    return "\n".join([f"## {title}\n", text, "| name | what it is | options |\n| --- | --- | --- |", *rows, ""])


def _cell(text: str) -> str:
    """Return text for a table's cell, with the double backticks of docstrings as single ones."""
    return re.sub(r"``(.*?)``", r"`\1`", text)


def _default(value: Any) -> str:
    if hasattr(value, "items"):
        return "{" + ", ".join(f"{key}: {_default(each)}" for key, each in value.items()) + "}"
    if hasattr(value, "model_dump"):
        return _default(value.model_dump())
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_default, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return value.__name__ if callable(value) else str(value)
