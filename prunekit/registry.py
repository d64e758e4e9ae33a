"""Names to things: built-in and installed ones, found without importing them (no torch)."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, final

from prunekit.errors import PluginError, RecipeError, nearest

KINDS = (
    "recipe",
    "task",
    "network",
    "architecture",
    "pruner",
    "scorer",
    "allocation",
    "strategy",
    "schedule",
    "command",
)

BUILT_IN = {
    "recipe": {"digits": "prunekit.recipes"},
    "task": {"digits": "prunekit.digits:digits"},
    "pruner": {
        "structured": "prunekit.structured.pruner:Structured",
        "unstructured": "prunekit.pruner:Unstructured",
    },
    "scorer": {
        "fisher": "prunekit.gradients:fisher",
        "grasp": "prunekit.gradients:grasp",
        "lamp": "prunekit.score:lamp",
        "magnitude": "prunekit.score:magnitude",
        "movement": "prunekit.tracking:movement",
        "random": "prunekit.score:random",
        "repeated": "prunekit.score:repeated",
        "snip": "prunekit.gradients:snip",
        "synflow": "prunekit.flow:synflow",
        "taylor": "prunekit.gradients:taylor",
        "ticket": "prunekit.score:ticket",
        "wanda": "prunekit.activations:wanda",
    },
    "allocation": {
        "erk": "prunekit.allocate:erk",
        "everywhere": "prunekit.allocate:everywhere",
        "n_of_m": "prunekit.groups:n_of_m",
        "per_layer": "prunekit.allocate:per_layer",
        "per_output": "prunekit.groups:per_output",
    },
    "strategy": {
        "at_init": "prunekit.plan:at_init",
        "dense": "prunekit.plan:dense",
        "gradual": "prunekit.plan:gradual",
        "iterative": "prunekit.plan:iterative",
        "one_shot": "prunekit.plan:one_shot",
    },
    "schedule": {
        "geometric": "prunekit.schedule:geometric",
        "linear": "prunekit.schedule:linear",
        "at_once": "prunekit.schedule:at_once",
        "cosine": "prunekit.schedule:cosine",
        "cubic": "prunekit.schedule:cubic",
        "explicit": "prunekit.schedule:explicit",
        "rate": "prunekit.schedule:rate",
    },
}

FAMILIES = {"timm": "prunekit.families:of_timm", "spandrel": "prunekit.families:of_spandrel"}
"""Packages whose networks go by ``package:name``, and what looks a name up there."""


@final
@dataclass(frozen=True)
class Entry:
    """Where a registered thing is: ``target`` is ``module:attribute`` (``module`` for recipes)."""

    kind: str
    name: str
    target: str
    distribution: str

    def load(self) -> Any:
        """Import the target.

        Raises:
            PluginError: the import failed, or the module has no such attribute; names the distribution and the cause.
        """
        module, _, attribute = self.target.partition(":")
        try:
            loaded = importlib.import_module(module)
        except Exception as cause:
            raise PluginError(
                f"{self.kind} {self.name!r} of {self.distribution} could not be imported from {self.target}: "
                f"{type(cause).__name__}: {cause}. Install, mend or uninstall that package."
            ) from cause
        if attribute and not hasattr(loaded, attribute):
            known = nearest(attribute, (name for name in dir(loaded) if name[0] != "_"))
            raise PluginError(f"{self.kind} {self.name!r}: {module} has no {attribute!r}; {known}")
        return getattr(loaded, attribute) if attribute else loaded


@final
@dataclass(frozen=True)
class Registry:
    """An immutable table of entries by (kind, name); adding returns a new one, so a failed add changes nothing.

    Example:
        >>> registry = Registry().add(Entry("scorer", "mine", "math:fabs", "example"))
        >>> registry.get("scorer", "mine")(-2)
        2.0
    """

    entries: Mapping[tuple[str, str], Entry] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def discover(cls, plugins: Iterable[EntryPoint] | None = None) -> Registry:
        """Return the built-in entries and those of installed packages (entry-point groups ``prunekit.<kind>``).

        Raises:
            PluginError: two packages register one name.
        """
        registry = cls()
        for kind, names in BUILT_IN.items():
            for name, target in names.items():
                registry = registry.add(Entry(kind, name, target, "prunekit"))
        installed = entry_points() if plugins is None else None  # once: it reads a file of every package
        given = tuple(plugins or ())
        for kind in KINDS:
            for point in installed.select(group=f"prunekit.{kind}") if installed is not None else given:
                if point.group == f"prunekit.{kind}":
                    origin = point.dist.name if point.dist else "an installed package"
                    registry = registry.add(Entry(kind, point.name, point.value, origin))
        return registry

    def add(self, entry: Entry) -> Registry:
        """Return a registry with one more entry.

        Raises:
            PluginError: unknown kind, or the name is taken by another entry.
        """
        if entry.kind not in KINDS:
            raise PluginError(
                f"{entry.distribution} registers the unknown kind {entry.kind!r}: {nearest(entry.kind, KINDS)}"
            )
        taken = self.entries.get((entry.kind, entry.name))
        if taken is not None and taken != entry:
            raise PluginError(
                f"two packages register the {entry.kind} {entry.name!r}: {taken.distribution} ({taken.target}) and "
                f"{entry.distribution} ({entry.target}). Uninstall or rename one of them."
            )
        return Registry(MappingProxyType({**self.entries, (entry.kind, entry.name): entry}))

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the names registered for a kind, sorted."""
        return tuple(sorted(name for of_kind, name in self.entries if of_kind == kind))

    def find(self, kind: str, name: str) -> Entry:
        """Return the entry of a registered name, or of one that is registered nowhere.

        ``python:module:attribute`` names one's own code, ``timm:NAME`` and ``spandrel:NAME`` those packages' networks.

        Raises:
            RecipeError: there is none; suggests the nearest name.
        """
        if name.startswith("python:"):
            return Entry(kind, name, name.removeprefix("python:"), "your own code")
        family = _family(kind, name)
        if family:
            return Entry(kind, name, FAMILIES[family], family)
        entry = self.entries.get((kind, name))
        if entry is None:
            raise RecipeError(f"there is no {kind} {name!r}: {nearest(name, self.names(kind))}")
        return entry

    def get(self, kind: str, name: str) -> Any:
        """Return the thing itself, imported now; raises as `find` and `Entry.load` do."""
        thing = self.find(kind, name).load()
        return thing(name.partition(":")[2]) if _family(kind, name) else thing


def _family(kind: str, name: str) -> str:
    """Return the package whose network a name is; nothing if it is none."""
    package, colon, _ = name.partition(":")
    return package if kind == "network" and colon and package in FAMILIES else ""
