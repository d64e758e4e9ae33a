"""The parent's end of a worker process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, final

from prunekit.errors import Failed


class Asked(Protocol):
    """Something that answers requests; a worker, or a test's stand-in."""

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Return the answer to a request; raises Failed with the reason where there is none."""
        ...


@final
class Worker:
    """A process that runs one backend, for as long as the ``with`` block does and not a moment longer.

    Args:
        log: file for everything that it and the libraries in it print.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            # -P and PYTHONPATH: it can import what we can, and nothing else that lies around in the working directory.
            # A session of its own: Ctrl-C reaches us alone, and what it started in turn dies with it.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "prunekit.bench.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                text=True,
                start_new_session=True,
            )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        with suppress(ProcessLookupError):  # nothing of it is left
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(BrokenPipeError), self._process:  # closes the pipes and waits
            pass

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Send a request and wait for its answer.

        Raises:
            Failed: the worker gave a reason why there is none, or died.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Failed(self._last_words())
        reply = json.loads(line)
        if "error" in reply:
            raise Failed(reply["error"])
        return reply["value"]

    def _last_words(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "its process was killed; most likely the memory ran out"
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        said = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return f"its process died ({how}){': ' + said[-1][:300] if said else ''}"
