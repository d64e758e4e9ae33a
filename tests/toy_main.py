"""``prunekit`` with a checkpoint at every step, killing itself where the environment variable KILL_AT says.

KILL_AT is ``place:n``: at the n-th time that place is passed. Places: write (a file is written but not yet in place),
renamed (just after), cut, evaluate, finish (a stage's results are filled but not published), step.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import prunekit.cli.run
import prunekit.execute
import prunekit.files
import prunekit.pruner
import prunekit.store
import prunekit.train
from prunekit.cli import main

PLACE, _, TIMES = os.environ.get("KILL_AT", "nowhere:0").partition(":")
passed = 0


def kill(place: str) -> None:
    global passed
    passed += place == PLACE
    if place == PLACE and passed == int(TIMES):
        os.kill(os.getpid(), signal.SIGKILL)


def before(place: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        kill(place)
        return function(*args, **kwargs)

    return wrapped


def replace(self: Path, target: Path, rename: Callable[..., Any] = Path.replace) -> Path:
    kill("write")
    result = rename(self, target)
    kill("renamed")
    return result


def arm() -> None:
    prunekit.train.SAVE_EVERY_S, prunekit.train.SAVE_SHARE = 0.0, 1e9
    prunekit.train._State.step = before("step", prunekit.train._State.step)
    prunekit.execute.Execution._evaluate = before("evaluate", prunekit.execute.Execution._evaluate)
    prunekit.pruner.Unstructured.cut = before("cut", prunekit.pruner.Unstructured.cut)
    prunekit.store.sync = before("finish", prunekit.store.sync)
    Path.replace = replace
    prunekit.cli.run.write_report = lambda path: [path]  # plots take longer than all the rest


if __name__ == "__main__":
    arm()
    main()
