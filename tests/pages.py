"""The pages of the documentation, cut into their blocks of code, with the marks that say how each is to be tested.

A mark is an HTML comment on the line above a block:

- ``<!-- not run: WHY -->``  is not run, for a reason that must be given;
- ``<!-- slow -->``          is run by the slow tests only (shell), all of its lines in turn;
- ``<!-- file: NAME -->``    is a file that the reader saves; it is written, and run as well where it is Python;
- ``<!-- output -->``        is what the Python block before it prints, exactly;
- ``<!-- run by PATH -->``   anywhere on a page: another test runs all its Python.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GENERATED = ("reference/api/", "reference/choices.md", "reference/cli.md", "reference/recipe.md")
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^>]*) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
PROGRAMS = ("prunekit", "torchrun", "accelerate", "python")


@dataclass(frozen=True)
class Block:
    page: str
    language: str
    text: str
    mark: str


BESIDE = ["../CONTRIBUTING.md", "../README.md"]


def pages() -> list[str]:
    """Return every page of the site that people wrote, by its path below docs."""
    names = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    return [name for name in names if not name.startswith(GENERATED)]


@cache
def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    return [Block(page, found["language"], found["text"], found["mark"] or "") for found in BLOCK.finditer(text(page))]


def run_elsewhere(page: str) -> str:
    """Return the test that runs a page's Python, where this is not the one."""
    found = re.search(r"<!-- run by (\S+) -->", text(page))
    return found.group(1) if found else ""


def commands(page: str) -> Iterator[tuple[list[str], bool]]:
    """Yield the words of every command of a page, and whether it is whole, or only named in a sentence."""
    for block in blocks(page):
        if block.language in ("", "bash"):
            yield from ((words, True) for words in _commands(block.text))
    prose = BLOCK.sub("", text(page))
    for quoted in re.findall(r"(?<!`)`(prunekit [^`]+)`(?!`)", prose):
        yield from ((words, False) for words in _commands(" ".join(quoted.split())))


def _commands(script: str) -> Iterator[list[str]]:
    script = re.sub(r"\s# .*$", "", script.replace("\\\n", " "), flags=re.MULTILINE)
    lexer = shlex.shlex(script.replace("|", "\\|"), posix=True, punctuation_chars=";&\n")
    lexer.whitespace, lexer.commenters, lexer.whitespace_split = " \t", "", True
    words: list[str] = []
    for word in [*lexer, "\n"]:
        if set(word) <= set(";&\n"):
            while words and re.match(r"[A-Z_]+=|\$$", words[0]):  # settings of the environment, a prompt
                words = words[1:]
            if words and words[0] in PROGRAMS:
                yield words
            words = []
        else:
            words.append(word)
