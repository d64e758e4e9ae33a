"""What mkdocstrings' parser must be told about our docstrings; named in `mkdocs.yml`."""

import importlib
import inspect
import re
from typing import Any

from griffe import Expr, Extension, Function, Object

OURS = re.compile(r"^(Formula|Reference):\n((?:    .*(?:\n|$))+)", re.MULTILINE)


class Docstrings(Extension):
    """Our doctests stand under ``Example``, which the parser knows as ``Examples``; our other sections it would box."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rename the one, and make paragraphs of the others."""
        if obj.docstring:
            text = OURS.sub(lambda found: f"**{found[1]}:** {' '.join(found[2].split())}\n", obj.docstring.value)
            obj.docstring.value = text.replace("\nExample:\n", "\nExamples:\n")

    def on_function(self, *, func: Function, **_: Any) -> None:
        """Say the values of defaults that are constants by name, such as those of the sizes and levels of a task."""
        named = [each for each in func.parameters if isinstance(each.default, Expr)]
        if named and func.parent and func.parent.is_module:
            thing = getattr(importlib.import_module(func.parent.path), func.name)
            for each in named:
                value = inspect.signature(thing).parameters[each.name].default
                if isinstance(value, (tuple, list, int, float, str)):
                    each.default = repr(value)
