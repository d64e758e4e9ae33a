"""What mkdocstrings' parser must be told about our docstrings; named in `mkdocs.yml`."""

import re
from typing import Any

from griffe import Extension, Object

OURS = re.compile(r"^(Formula|Reference):\n((?:    .*(?:\n|$))+)", re.MULTILINE)


class Docstrings(Extension):
    """Our doctests stand under ``Example``, which the parser knows as ``Examples``; our other sections it would box."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rename the one, and make paragraphs of the others."""
        if obj.docstring:
            text = OURS.sub(lambda found: f"**{found[1]}:** {' '.join(found[2].split())}\n", obj.docstring.value)
            obj.docstring.value = text.replace("\nExample:\n", "\nExamples:\n")
