from __future__ import annotations

from importlib import resources
from importlib.metadata import EntryPoint

import pytest

from prunekit.errors import PluginError, RecipeError
from prunekit.registry import BUILT_IN, Entry, Registry
from prunekit.schedule import geometric


def point(name: str, value: str, group: str = "prunekit.scorer") -> EntryPoint:
    return EntryPoint(name=name, value=value, group=group)


def test_every_built_in_loads() -> None:
    registry = Registry.discover([])
    for kind, names in BUILT_IN.items():
        for name in names:
            loaded = registry.get(kind, name)
            assert callable(loaded) or (resources.files(loaded) / f"{name}.yaml").is_file()
    assert registry.get("schedule", "geometric") is geometric


def test_a_plugin_is_found_by_its_entry_point() -> None:
    assert Registry.discover([point("absolute", "math:fabs")]).get("scorer", "absolute")(-1) == 1


def test_two_things_with_one_name_are_refused_and_nothing_changes() -> None:
    registry = Registry().add(Entry("scorer", "mine", "a:b", "one"))
    with pytest.raises(PluginError, match=r"two packages register the scorer 'mine': one \(a:b\) and two \(c:d\)"):
        registry.add(Entry("scorer", "mine", "c:d", "two"))
    assert registry.names("scorer") == ("mine",)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match="there is no scorer 'magnitud': did you mean 'magnitude'"):
        Registry.discover([]).get("scorer", "magnitud")


def test_a_plugin_that_fails_to_import_is_named_with_its_cause() -> None:
    registry = Registry.discover([point("broken", "no_such_module_here:x")])
    with pytest.raises(
        PluginError, match="scorer 'broken' of an installed package could not be imported.*ModuleNotFound"
    ):
        registry.get("scorer", "broken")


def test_ones_own_code_needs_no_registration() -> None:
    assert Registry().get("task", "python:math:floor")(1.5) == 1


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(PluginError, match="unknown kind 'scorers': did you mean 'scorer'"):
        Registry().add(Entry("scorers", "x", "a:b", "p"))
