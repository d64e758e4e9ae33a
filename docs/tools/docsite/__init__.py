"""Pages of the documentation that are made from the program itself, so that they cannot fall behind it."""

from pathlib import Path

from docsite import api, choices, cli, recipe


def pages() -> dict[str, str]:
    """Return the text of every generated page by its path below ``docs``."""
    return {**api.pages(), **choices.pages(), **cli.pages(), **recipe.pages()}


def write(docs: Path) -> None:
    """Write the pages where they differ, so that a server that watches sees only what changed."""
    for name, text in pages().items():
        path = docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
