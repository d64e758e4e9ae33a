"""How a study was made, for its page: what stopped, the command, protocol, data, environment and recipe."""

from __future__ import annotations

import shlex
from html import escape
from pathlib import Path
from typing import Any

import yaml

from prunekit.errors import RunError
from prunekit.report.document import prose, table
from prunekit.report.html import protocol_and_data
from prunekit.report.markdown import environment
from prunekit.report.results import unfinished
from prunekit.report.table import Table
from prunekit.study.folder import HELD, Asked
from prunekit.study.measured import Results


def origin(results: Results) -> str:
    """Return it as markup.

    Raises:
        RunError: ``study.yaml``, or a run's ``env.json``, is damaged.
    """
    folder = results.folder
    held = _held(folder)
    name = folder.resolve().name
    seeds = {seed for arm in results.arms.values() for seed in arm.stages}
    command = shlex.join(["prunekit", "study", f"{name}.yaml", *_options(results.asked, int(held["k"]), len(seeds))])
    saved = f"For the same again, save the recipe below as `{name}.yaml`, and give this command beside it:"
    recipe = yaml.safe_dump(held["recipe"], sort_keys=False).strip()
    stages = [stage for arm in results.arms.values() for runs in arm.stages.values() for stage in runs]
    return "".join(
        (
            _stopped(results),
            f"<h3>The same again</h3><p>{prose(saved)}</p><pre>{escape(command)}</pre>",
            protocol_and_data(stages),
            "<h3>Environment</h3>" + table(Table(("what", "value"), _environments(folder)), kind="words"),
            f"<h3>Recipe, every default filled in</h3><pre>{escape(recipe)}</pre>",
        )
    )


def _held(folder: Path) -> dict[str, Any]:
    try:
        held = yaml.safe_load((folder / HELD).read_text(encoding="utf-8"))
        return {"k": int(held["k"]), "recipe": dict(held["recipe"])}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as cause:
        raise RunError(f"{folder / HELD} is damaged: is {folder} a study directory?") from cause


def _options(asked: Asked, k: int, seeds: int) -> list[str]:
    options = ["--arms", ",".join(asked.arms), "--seeds", str(seeds), "--k", str(k), "--margin", f"{asked.margin:g}"]
    each = asked.each
    return [*options, *(["--each", f"task.{each.option}={','.join(each.values)}"] if each else [])]


def _stopped(results: Results) -> str:
    left = [
        f"{run.parent.parent.name}/{run.parent.name}: {', '.join(unfinished(run.parent))}"
        for run in sorted(results.folder.glob("seed-*/*/plan.json"))
        if unfinished(run.parent)
    ]
    failed = [f"<li>{escape(f'{arm} of seed {seed}: {why}')}</li>" for (arm, seed), why in results.failed.items()]
    html = f"<p><strong>Unfinished:</strong> {escape('; '.join(left))}.</p>" if left else ""
    return html + (f"<p><strong>Failed:</strong></p><ul>{''.join(failed)}</ul>" if failed else "")


def _environments(folder: Path) -> tuple[tuple[str, str], ...]:
    """Return what the runs were made with; where they differ, all that there is."""
    found: dict[str, dict[str, None]] = {}
    for file in sorted(folder.glob("seed-*/*/env.json")):
        for what, value in environment(file.parent):
            found.setdefault(what, {})[value] = None
    return tuple((what, "; or ".join(values)) for what, values in found.items())
