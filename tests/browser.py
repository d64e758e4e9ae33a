"""A browser for tests: Chromium through its own driver, by the W3C WebDriver protocol; no package needed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--window-size=1000,800"),
)
PRESENT = bool(shutil.which("chromium") and shutil.which("chromedriver"))


class Browser:
    """One headless window, with a profile of its own."""

    def __init__(self, profile: Path) -> None:
        self.driver = subprocess.Popen(
            [str(shutil.which("chromedriver")), "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.driver.stdout is not None
        said = next(line for line in self.driver.stdout if "started successfully" in line)
        port = re.findall(r"port (\d+)", said)[0]
        self.address = f"http://127.0.0.1:{port}/session"
        options = {"binary": shutil.which("chromium"), "args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.address += "/" + self.ask("", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def ask(self, path: str, body: Any, method: str = "POST") -> Any:
        data = None if method != "POST" else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def open(self, address: str) -> None:
        self.ask("/url", {"url": address})

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what a script returns."""
        return self.ask("/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script: str, seconds: float = 60) -> Any:
        """Return what a script returns as soon as that is anything."""
        deadline_s = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < deadline_s, (script, self.log())
            time.sleep(0.1)
        return value

    def press(self, selector: str, keys: str) -> None:
        """Focus an element and press keys, as a person would."""
        found = self.ask("/element", {"using": "css selector", "value": selector})
        self.ask(f"/element/{next(iter(found.values()))}/value", {"text": keys})

    def point(self, x: float, y: float, *, click: bool = False) -> None:
        """Move the pointer to a place in the window."""
        moves: list[dict[str, Any]] = [{"type": "pointerMove", "x": round(x), "y": round(y), "duration": 0}]
        moves += [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp") if click]
        self.ask("/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": moves}]})

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self.ask("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def log(self) -> list[str]:
        """Return the warnings and errors of the console so far."""
        entries = self.ask("/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]

    def close(self) -> None:
        try:
            self.ask("", None, "DELETE")
        finally:
            self.driver.terminate()
            self.driver.communicate(timeout=30)
