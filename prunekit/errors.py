"""Errors for people: each message says what was wrong, where, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PruneKitError(Exception):
    """A user's mistake that a message can mend; the command line prints it without a traceback and exits with 2."""

    exit_code = 2


class RecipeError(PruneKitError):
    """A recipe, an override, or a name in one is wrong."""


class PluginError(PruneKitError):
    """A plugin is missing, broken, or takes a name that is already taken."""


class DataError(PruneKitError):
    """A data folder or an image cannot be used."""


class SelectionError(PruneKitError):
    """The choice of prunable parameters, or the amount asked of them, cannot be met."""


class BudgetError(PruneKitError):
    """Something took more time or memory than it was given."""


class MaskError(PruneKitError):
    """Masks do not fit a model, or a held model broke them."""


class CheckpointError(PruneKitError):
    """A weights file is unreadable, unsafe, or belongs to another network."""


class RunError(PruneKitError):
    """A run directory is foreign, locked, damaged, or holds another recipe."""


class RunBusy(RunError):  # noqa: N818  (said of the run)
    """Another process is writing to the run directory: it can be waited for."""


class Failed(PruneKitError):  # noqa: N818  (read as a verb: the run failed)
    """The run itself failed (loss not finite, disk full); the command line exits with 1."""

    exit_code = 1


class Interrupted(PruneKitError):  # noqa: N818  (read as a verb: the run was interrupted)
    """The user stopped the run; it can be continued; the command line exits with 130."""

    exit_code = 130


class PruneKitWarning(UserWarning):
    """Something a person should know of a result that is right; the command line prints it as one line."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the tail of an error message: the nearest known name, and all of them when they are few.

    Example:
        >>> nearest("magnitde", ["magnitude", "random"])
        "did you mean 'magnitude'? Known: magnitude, random."
    """
    names = sorted(known)
    lowered = {each.lower(): each for each in names} | {each: each for each in names}
    close = difflib.get_close_matches(name, lowered, n=1) or difflib.get_close_matches(name.lower(), lowered, n=1)
    guess = f"did you mean {lowered[close[0]]!r}? " if close else ""
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"{guess}Known: {listed or 'none'}."
