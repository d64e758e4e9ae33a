"""``prunekit runs``: the run directories below a folder, read without torch."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import typer
import yaml

from prunekit.errors import RunError

DEPTH = 4  # studies keep theirs three folders down


@final
@dataclass(frozen=True)
class Row:
    """What one run directory holds; ``score`` is the first task's, ``problem`` says why it cannot be read."""

    run: str
    task: str
    strategy: str
    done: int
    stages: int
    density_of_all: float | None
    score: str
    bytes: int
    changed: float
    held: bool
    problem: str = ""


def show_runs(folder: Path, *, as_json: bool) -> None:
    """Print a table of the runs below a folder, the last changed first."""
    if not folder.is_dir():
        raise RunError(f"{folder} is not a folder: name the one that your runs are in, e.g. prunekit runs runs.")
    rows = sorted((read_row(path) for path in run_folders(folder)), key=lambda row: row.changed, reverse=True)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=1))
        return
    if not rows:
        typer.echo(f"no runs in {folder}; prunekit run RECIPE makes one.")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("run", "task", "stages", "kept", "score", "MB", "changed"):
        table.add_column(title, no_wrap=title != "task", justify="right" if title == "MB" else "left")
    for row in rows:
        kept = "" if row.density_of_all is None else f"{row.density_of_all:.1%}"
        state = row.problem or ("running" if row.held else ago(time.time() - row.changed))
        name = os.path.relpath(row.run, folder) if Path(row.run) != folder else row.run
        cells = (name, row.task, f"{row.done}/{row.stages}", kept, row.score, f"{row.bytes / 1e6:.1f}")
        table.add_row(*cells, state)
    Console(markup=False).print(table)


def run_folders(folder: Path) -> Iterator[Path]:
    """Yield the run directories below a folder, or the folder itself if it is one."""
    for place, below, files in os.walk(folder):
        path = Path(place)
        if "recipe.yaml" in files and "plan.json" in files:
            below.clear()
            yield path
        elif len(path.relative_to(folder).parts) >= DEPTH:
            below.clear()


def read_row(run: Path) -> Row:
    """Read one run directory; never raises, since one damaged run should not hide the others."""
    files = [Path(place) / name for place, _, names in os.walk(run) for name in names if name != "lock"]
    stats = [stat for stat in map(_stat, files) if stat]
    size, changed = sum(stat.st_size for stat in stats), max((stat.st_mtime for stat in stats), default=0.0)
    try:
        recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
        plan = [stage["name"] for stage in _json(run / "plan.json")]
        done = [name for name in plan if (run / name / "done").is_dir()]
        kept, score = _last(run / done[-1] / "done") if done else (None, "")
        task, strategy = recipe["task"]["name"], recipe["strategy"]["name"]
        return Row(str(run), task, strategy, len(done), len(plan), kept, score, size, changed, held(run))
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as cause:
        return Row(str(run), "?", "?", 0, 0, None, "", size, changed, held(run), f"damaged: {type(cause).__name__}")


def _last(folder: Path) -> tuple[float, str]:
    facts = _json(folder / "stage.json")
    metric, means = first_metric(_json(folder / "metrics.json"))
    score = next((f"{label} {mean:.4g} {metric}" for label, mean in means.items()), "")
    return facts["remaining"] / facts["total"], score


def first_metric(measures: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, float]]:
    """Return the first metric, and its means over items by task; by task and data set where a task has several.

    Example:
        >>> made = [{"task": "blur", "dataset": d, "metric": "psnr", "value": v} for d, v in (("A", 20), ("B", 40))]
        >>> first_metric(made)
        ('psnr', {'blur (A)': 20.0, 'blur (B)': 40.0})
    """
    metric = measures[0]["metric"] if measures else ""
    values: dict[tuple[str, str], list[float]] = {}
    for each in measures:
        if each["metric"] == metric:
            values.setdefault((each["task"], each["dataset"]), []).append(each["value"])
    tasks = [task for task, _ in values]
    names = {group: f"{group[0]} ({group[1]})" if tasks.count(group[0]) > 1 else group[0] for group in values}
    return metric, {names[group]: sum(each) / len(each) for group, each in values.items()}


def held(run: Path) -> bool:
    """Return whether a process writes to a run now."""
    try:
        with (run / "lock").open("rb") as lock:
            fcntl.lockf(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def ago(seconds: float) -> str:
    """Return how long ago something was.

    Example:
        >>> ago(30), ago(7200), ago(200000)
        ('1 min ago', '2 h ago', '2 days ago')
    """
    if seconds < 5400:
        return f"{max(1, round(seconds / 60))} min ago"
    return f"{round(seconds / 3600)} h ago" if seconds < 129600 else f"{round(seconds / 86400)} days ago"


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:  # gone meanwhile
        return None


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
