"""One HTML file that needs nothing else: texts escaped, scripts named by their hashes, no network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from string import Template
from typing import final

from prunekit.report.charts import Key, Plot, library, to_json
from prunekit.report.pictures import Scene, with_pictures
from prunekit.report.table import Table


@final
@dataclass(frozen=True)
class Section:
    """A part of the page: ``html`` is markup already; ``plots`` are figures by the name of the element they fill.

    ``scenes`` are pictures for the `prunekit.report.pictures.PLACE` in it; they get the room that all else leaves.
    """

    title: str
    html: str
    plots: Mapping[str, Plot] = field(default_factory=dict)
    scenes: Sequence[Scene] = ()


def document(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return the page.

    Args:
        title: plain text.
        lead: markup under the title.
        sections: in order; those without content are left out.

    Raises:
        PruneKitError: bokeh or pillow is missing.
    """
    shown = [section for section in sections if section.html]
    parts = [f'<section id="s{n}"><h2>{escape(each.title)}</h2>\n{each.html}</section>' for n, each in enumerate(shown)]
    figures = {name: plot.figure for section in shown for name, plot in section.plots.items()}
    scripts = [library() if figures else "", _file("page.js")]
    page = Template(_file("page.html")).substitute(
        hashes=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        title=escape(title),
        style=_file("page.css"),
        lead=lead,
        nav="".join(f'<a href="#s{n}">{escape(section.title)}</a>' for n, section in enumerate(shown)),
        body="\n".join(parts),
        plots=json.dumps(to_json(figures)).replace("<", "\\u003c") if figures else '{"items": []}',
        library=scripts[0],
        script=scripts[1],
    )
    found = [scene for section in shown for scene in section.scenes]
    return with_pictures(page, found) if found else page


def _file(name: str) -> str:
    return (resources.files("prunekit.report") / "page" / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def table(plain: Table, *, kind: str = "numbers") -> str:
    """Return a table and its notes as markup; ``kind`` is ``numbers``, or ``words`` where cells are sentences."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in plain.header)
    rows = "".join(f"<tr>{''.join(f'<td>{prose(cell)}</td>' for cell in row)}</tr>" for row in plain.rows)
    notes = "".join(f'<p class="soft">{prose(note)}</p>' for note in plain.notes)
    body = f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<div class="wide">{body}</div>{notes}'


def prose(text: str) -> str:
    """Return plain text as markup; what stands between backticks is code.

    Example:
        >>> prose("`a` < b")
        '<code>a</code> &lt; b'
    """
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def folded(title: str, html: str) -> str:
    """Return markup that opens on request."""
    return f"<details><summary>{escape(title)}</summary>{html}</details>"


def drawn(plots: Mapping[str, Plot]) -> str:
    """Return the elements that plots are drawn into, with their legends below."""
    return f'<div class="plots">{"".join(_drawn(name, plot) for name, plot in plots.items())}</div>'


def _drawn(name: str, plot: Plot) -> str:
    def key(each: Key) -> str:
        swatch = f'<span class="swatch" style="border-top: 3px {each.dash} {each.colour}"></span>'
        box = f'<input type="checkbox" value="{escape(each.name)}"{" checked" if each.shown else ""}>'
        return f"<label>{box}{swatch}{escape(each.name)}</label>"

    place = f'<div id="{name}" role="figure" aria-label="{escape(plot.figure.title.text)}"></div>'
    return f'<div class="plot">{place}<div class="keys">{"".join(map(key, plot.keys))}</div></div>'
