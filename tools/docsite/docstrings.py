"""What mkdocstrings' parser must be told about our docstrings; named in `mkdocs.yml`."""

from typing import Any

from griffe import Extension, Object


class Docstrings(Extension):
    """Our section of doctests is ``Example``; the parser knows it as ``Examples``, and takes it for text otherwise."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rename the section."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
