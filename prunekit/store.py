"""The run directory, the only thing that is written: one process at a time, and what is in it is the progress."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, final

import yaml

from prunekit.errors import RunBusy, RunError
from prunekit.files import read_json, refused, sync, write_json, write_text
from prunekit.plan import Plan, Stage
from prunekit.recipe import Recipe

LAST = "last.safetensors"
DONE = "done"
WORST = "worst.safetensors"
LOOK_S = 0.1
"""Longer than looking whether a run is held takes."""


@final
class Run:
    """A run directory, open for writing by this process alone.

    Layout: ``recipe.yaml env.json plan.json step-K.safetensors``, and for each stage a folder with
    ``last.safetensors log.jsonl`` while it trains and ``done/`` when it is complete.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def open(self, recipe: Recipe, environment: Mapping[str, Any], plan: Any) -> None:
        """Create the directory, or check that it holds the same recipe and plan.

        Raises:
            RunError: another process writes here, the directory is something else's, or the recipe differs.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file, not a run directory; choose another --out.")
        if self.path.is_dir() and any(self.path.iterdir()) and not (self.path / "recipe.yaml").exists():
            ours = ("env.json", "plan.json", "lock")  # of a run killed while it was being created
            strangers = [file.name for file in self.path.iterdir() if file.name not in ours and file.name[0] != "."]
            if strangers:
                raise RunError(
                    f"{self.path} holds {strangers[0]!r} and no recipe.yaml: not a run; choose another --out."
                )
        self.acquire()
        held = self.path / "recipe.yaml"
        if held.exists():
            check_same(read_recipe_file(held), recipe, self.path)
            if read_json(self.path / "plan.json") != plan:
                raise RunError(
                    f"{self.path} holds another plan of the same recipe: its data had another size, or another version "
                    "of the task made it. Choose another --out, or --fresh to put it aside."
                )
            return
        write_json(self.path / "env.json", dict(environment))
        write_json(self.path / "plan.json", plan)
        write_text(held, yaml.safe_dump(recipe.model_dump(), sort_keys=False))

    def acquire(self) -> None:
        """Become the only process that writes here; raises RunError while another one is."""
        # A POSIX record lock dies with this process even when a loader worker it forked lives on; flock would not.
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as cause:
            raise RunError(f"{self.path} cannot be written: {cause}; choose another --out.") from cause
        try:
            _lock(self._lock)
        except OSError as cause:
            os.close(self._lock)
            self._lock = None
            if cause.errno not in (errno.EACCES, errno.EAGAIN):
                raise RunError(f"{self.path} cannot be locked: {cause}; choose another --out.") from cause
            raise RunBusy(
                f"another process is writing to {self.path}; wait for it, or choose another --out."
            ) from cause

    def close(self) -> None:
        """Let another process write here."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def folder(self, stage: Stage) -> Path:
        """Return the stage's folder."""
        return self.path / stage.name

    def done(self, stage: Stage) -> Path | None:
        """Return the folder of the stage's results, or None while it is not complete."""
        path = self.folder(stage) / DONE
        return path if path.is_dir() else None

    def snapshot(self, step: int) -> Path:
        """Return where the dense run's weights at ``step`` are kept."""
        return self.path / f"step-{step}.safetensors"

    def finish(self, stage: Stage, fill: Callable[[Path], None]) -> Path:
        """Let ``fill`` write the stage's results, publish them in one step, and drop its training checkpoint."""
        folder = self.folder(stage)
        temporary = folder / ".done.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            fill(temporary)
            sync(temporary)
            temporary.rename(folder / DONE)
            sync(folder)
        except OSError as cause:
            raise refused(folder / DONE, cause) from cause
        (folder / LAST).unlink(missing_ok=True)
        return folder / DONE

    def bytes(self) -> int:
        """Return the bytes that the directory takes."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())


def _lock(file: int) -> None:
    """Take the lock of a run; whoever only looks whether it is held holds it for a moment, which is waited out."""
    for last in (False, False, True):
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as cause:
            if last or cause.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            time.sleep(LOOK_S)
        else:
            return


def read_recipe_file(path: Path) -> Recipe:
    """Read a run's recipe; raises RunError when it is damaged."""
    try:
        return Recipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as cause:
        raise RunError(f"{path} is missing or damaged: is {path.parent} a run directory?") from cause


def check_same(held: Recipe, asked: Recipe, path: Path) -> None:
    """Refuse a run directory of another recipe, naming the keys that differ."""
    before, after = _flat(held.model_dump()), _flat(asked.model_dump())
    changed = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key) and key != "description"]
    if changed:
        lines = "; ".join(f"{key}: {before.get(key)!r} there, {after.get(key)!r} now" for key in changed[:5])
        raise RunError(
            f"{path} holds a run of another recipe ({lines}). Choose another --out, or --fresh to put it aside."
        )


def check_shared(held: Recipe, asked: Recipe, path: Path) -> None:
    """Refuse the dense stage of another training: all but what is cut, and when, must be the same."""
    same = {"prune": held.prune, "strategy": held.strategy}
    try:
        check_same(held, asked.model_copy(update=same), path)
    except RunError as cause:
        raise RunError(
            str(cause).replace("Choose another --out, or --fresh to put it aside.", "Name a dense run of this one.")
        ) from cause


def _flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {path + key: value}
    return flat


def differing(trees: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return ``key.sub`` -> its value in each recipe (None where it has none), for the keys that differ.

    Example:
        >>> differing([{"seed": 0, "task": {"steps": 5}}, {"seed": 0, "task": {"steps": 9}}])
        {'task.steps': [5, 9]}
    """
    flat = [_flat(tree) for tree in trees]
    values = {key: [each.get(key) for each in flat] for each in flat for key in each}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def stored_plan(plan: Plan) -> list[dict[str, Any]]:
    """Return the plan as JSON can hold it, for ``plan.json``."""
    return [
        {
            "name": stage.name,
            "weights": stage.start.weights,
            "clock": stage.start.clock,
            "keep": list(stage.start.keep),
            **({"reinit": stage.start.reinit} if stage.start.reinit is not None else {}),
            "end": stage.end,
            "prune_at": [[step, type(amount).__name__, amount.value] for step, amount in stage.prune_at],
            **({"keep_steps": list(stage.keep_steps)} if stage.keep_steps else {}),
        }
        for stage in plan
    ]


def done_stages(path: Path) -> dict[str, Path]:
    """Return stage name -> folder of its results, in the plan's order, for the stages of a run that are complete.

    Raises:
        RunError: not a run directory, or no stage of it is complete.
    """
    if not (path / "recipe.yaml").exists():
        raise RunError(f"{path} is not a run directory: it has no recipe.yaml.")
    try:
        names = [str(stage["name"]) for stage in read_json(path / "plan.json")]
    except (TypeError, KeyError) as cause:
        raise RunError(f"{path / 'plan.json'} is damaged; start again with --fresh.") from cause
    found = {name: path / name / DONE for name in names if (path / name / DONE).is_dir()}
    if not found:
        raise RunError(f"no stage of {path} is complete yet; run its recipe on.")
    return found
