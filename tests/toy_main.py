"""``prunekit`` with a checkpoint at every step, killing itself where it is told to.

``kill_at`` is ``place:n``: at the n-th time that place is passed. Places: write (a file is written but not yet in
place), renamed (just after), cut, evaluate, finish (a stage's results are filled but not published), step.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import prunekit.cli.run
import prunekit.execute
import prunekit.files
import prunekit.store
import prunekit.train
from prunekit.cli import main

left: dict[str, int] = {}  # place -> how often it is still to be passed alive


def kill(place: str) -> None:
    if place in left:
        left[place] -= 1
        if left[place] == 0:
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
    prunekit.execute.Execution._decide = before("cut", prunekit.execute.Execution._decide)
    prunekit.store.sync = before("finish", prunekit.store.sync)
    Path.replace = replace
    prunekit.cli.run.write_report = lambda path: [path]  # plots take longer than all the rest


def run(arguments: list[str], kill_at: str, output: Path) -> None:
    """Be ``prunekit ARGUMENTS``, with everything it prints in a file."""
    output.parent.mkdir(exist_ok=True)
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    sys.argv = arguments
    place, _, times = kill_at.partition(":")
    left[place] = int(times)
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # for loader workers, as in a process of one's own
    arm()
    main()
