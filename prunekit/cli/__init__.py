"""The command line: ``prunekit run``, ``plan``, ``export`` and so on (see `prunekit.cli.app`), and plugins' verbs."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TextIO

from prunekit.cli.app import build
from prunekit.errors import PluginError, PruneKitError, PruneKitWarning
from prunekit.registry import Registry


def main() -> None:
    """Run the program; a user's mistake ends in one message and its exit code, never in a traceback."""
    sys.path.append(str(Path.cwd()))  # for `python:` names, as `python -m` does
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show
            build(_registry())()
    except PruneKitError as error:
        sys.stderr.write(f"prunekit: {error}\n")
        sys.exit(error.exit_code)
    except OSError as error:  # a folder that may not be written, a disk that went away: no bug of ours
        sys.stderr.write(f"prunekit: {error}. Mend that, and give the same command again.\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("prunekit: interrupted\n")
        sys.exit(130)


def _registry() -> Registry:
    """Return what is installed; the verb that says what is wrong must work whatever is."""
    try:
        return Registry.discover()
    except PluginError:
        if sys.argv[1:2] == ["doctor"]:
            return Registry()
        raise


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning; ours as a sentence, without the line of code that it comes from."""
    ours = issubclass(category, PruneKitWarning)
    sys.stderr.write(
        f"prunekit: {message}\n" if ours else warnings.formatwarning(message, category, filename, lineno, line)
    )
