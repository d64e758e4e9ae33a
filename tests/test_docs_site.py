"""The built site in a browser: every page and link, the console, the network, both widths, both palettes, search.

Set PRUNEKIT_SCREENSHOTS to a folder to look at every page afterwards.
"""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

import pytest

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"]
FLAGS += ["disable-component-update", "disable-sync"]
FOLDER = "a/folder"  # of the server, for the site must work in any
MISSING = ("no/such/page/", "how-to/no/such/page/")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")]


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves the site as a host would, with its own page for what is not there."""

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        body = Path(self.directory, FOLDER, "404.html").read_bytes()
        self.send_response(code)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Build the site strictly and serve a copy of it, as another build may begin; return its address."""
    pytest.importorskip("zensical")
    built = subprocess.run(
        [sys.executable, ROOT / "docs" / "tools" / "build.py"], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    served = tmp_path_factory.mktemp("served")
    shutil.copytree(ROOT / "site", served / FOLDER)
    handler = functools.partial(Server, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{FOLDER}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as programs:
        yield programs.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("profile")),
            executable_path=CHROMIUM,
            headless=True,
            args=[f"--{flag}" for flag in FLAGS],
        )


@pytest.fixture
def page(browser: Any, site: str) -> Iterator[Any]:
    """A tab in which nothing may go wrong: no message on the console but of `MISSING`, no request to anywhere else."""
    tab, wrong = browser.new_page(), []

    def hear(message: Any) -> None:
        if message.type in ("error", "warning") and message.location["url"] not in [site + name for name in MISSING]:
            wrong.append(f"{message.text} {message.location['url']}")

    tab.on("console", hear)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("request", lambda asked: None if asked.url.startswith((site, "data:", "blob:")) else wrong.append(asked.url))
    yield tab
    tab.close()
    assert wrong == []


def look(page: Any, name: str, colours: str, width: str) -> None:
    """Take a screenshot where these are wanted."""
    if folder := os.environ.get("PRUNEKIT_SCREENSHOTS"):
        path = Path(folder) / f"{name.strip('/').replace('/', '-') or 'index'}-{colours}-{width}.png"
        page.wait_for_timeout(400)  # what fades in or out after a change of size
        page.screenshot(path=str(path), full_page=True)


def test_every_page_and_every_link(page: Any, site: str) -> None:
    waiting, seen, links = [site], set[str](), set[str]()
    anchors: dict[str, set[str]] = {}
    while waiting:
        address = waiting.pop()
        if address in seen:
            continue
        seen.add(address)
        page.set_viewport_size(WIDE)
        answer = page.goto(address)
        assert answer.ok, address
        if "html" not in answer.headers["content-type"]:
            continue
        anchors[address] = set(page.eval_on_selector_all("[id]", "all => all.map(each => each.id)"))
        found = page.eval_on_selector_all("a[href]", "all => all.map(each => each.href)")
        links |= {link for link in found if link.startswith(site)}
        waiting += sorted({urldefrag(link).url for link in links} - seen)
        look(page, address.removeprefix(site), "light", "wide")
        page.set_viewport_size(PHONE)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], f"{address} is too wide"
        look(page, address.removeprefix(site), "light", "phone")
    for address, anchor in map(urldefrag, sorted(links)):
        assert not anchor or anchor in anchors[address], f"{address}#{anchor}"
    pages = {path.parent.relative_to(ROOT / "site") for path in (ROOT / "site").rglob("index.html")}
    assert len(anchors) == len(pages), "a page is linked from nowhere"
    print(f"{len(anchors)} pages, {len(links)} links")


def test_dark_mode(page: Any, site: str) -> None:
    page.set_viewport_size(WIDE)
    page.emulate_media(color_scheme="dark")
    for name in ("", "reference/choices/", "explanation/design/", "how-to/own-loop/", "reference/api/masks/"):
        page.goto(site + name)
        assert page.evaluate("document.body.getAttribute('data-md-color-scheme')") == "slate"
        look(page, name, "dark", "wide")


def test_search_finds_a_scorer(page: Any, site: str) -> None:
    page.set_viewport_size(WIDE)
    page.goto(site)
    page.get_by_role("button", name="Search").first.click()
    page.keyboard.type("synflow")
    page.get_by_text(re.compile(r"^[1-9]\d* results")).wait_for()
    look(page, "search", "light", "wide")
    page.keyboard.press("Enter")
    page.wait_for_url("**/*synflow*")


def test_a_page_that_is_not_there(page: Any, site: str) -> None:
    for name, start in zip(MISSING, (site + "no/such/", site), strict=True):
        answer = page.goto(site + name)
        assert answer.status == 404 and "404" in page.inner_text("body")
        assert page.eval_on_selector("a", "each => each.href") == start
        assert page.eval_on_selector("body", "each => getComputedStyle(each).maxWidth") != "none"  # it has its style
    look(page, "404", "light", "wide")


def test_every_page_says_the_version(page: Any, site: str) -> None:
    page.goto(site + "reference/cli/")
    assert f"PruneKit {version('prunekit')}" in page.inner_text("footer")
