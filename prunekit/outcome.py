"""A run's results as tables of plain values, for Python and notebooks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from prunekit.errors import PruneKitError
from prunekit.report import write_report
from prunekit.report.html import write_html
from prunekit.report.results import StageResult, read_results
from prunekit.report.table import against, dense

FACTS = (
    *("density", "density_of_all", "kept", "prunable", "remaining", "total", "steps", "bytes", "ticket_bytes"),
    *("macs_dense", "macs_kept", "latency_ms", "seconds", "peak_mib"),
)


@final
@dataclass(frozen=True, repr=False)
class Outcome:
    """A run and its results.

    Args:
        run: the run directory.
        stages: a row for each finished stage: what is kept, and what it costs.
        scores: a row for each stage, task, data set and metric: the mean over items, that of the untreated input where
            there is one, and the difference to the dense stage with half of its 95 % interval; None for none.
    """

    run: Path
    stages: tuple[dict[str, Any], ...]
    scores: tuple[dict[str, Any], ...]

    def to_pandas(self, table: Literal["stages", "scores"] = "scores") -> Any:
        """Return a table as a pandas data frame; raises PruneKitError where pandas is not installed."""
        try:
            import pandas
        except ImportError as cause:
            raise PruneKitError(
                "to_pandas needs pandas: pip install pandas. The tables are there without it: .stages and .scores."
            ) from cause
        return pandas.DataFrame(list(getattr(self, table)))

    def report(self, out: str | Path | None = None, *, html: bool = False) -> Path:
        """Write the report, Markdown or one HTML page, into ``out`` or the run's ``report``; return the page."""
        folder = None if out is None else Path(out)
        return write_html(self.run, folder) if html else write_report(self.run, folder)[0]

    def __hash__(self) -> int:
        return hash(self.run)

    def __repr__(self) -> str:
        if not self.stages:
            return f"Outcome({self.run}: no stage is done)"
        last = self.stages[-1]
        metric = self.scores[0]["metric"] if self.scores else ""
        mine = [row for row in self.scores if row["stage"] == last["stage"] and row["metric"] == metric]
        tasks = [row["task"] for row in mine]
        names = [f"{row['task']} ({row['dataset']})" if tasks.count(row["task"]) > 1 else row["task"] for row in mine]
        scores = ", ".join(f"{name} {row['value']:.4g}" for name, row in zip(names, mine, strict=True))
        return (
            f"Outcome({self.run}: {len(self.stages)} stages, {last['density_of_all']:.2%} of all kept"
            f"{f'; {metric}: {scores}' if mine else ''})"
        )


def read_outcome(run: Path) -> Outcome:
    """Read the finished stages of a run; errors as `prunekit.report.results.read_results`'s."""
    results = read_results(run)
    stages = tuple({"stage": r.name, **{name: getattr(r, name) for name in FACTS}} for r in results)
    reference = dense(results)
    return Outcome(run, stages, tuple(row for result in results for row in _scores(result, reference)))


def _scores(result: StageResult, reference: StageResult | None) -> list[dict[str, Any]]:
    rows = []
    for mean in result.means():
        gap = against(result, reference, mean.metric).get((mean.task, mean.dataset), (None, None))
        change, half = (None if each is None or each != each else each for each in gap)
        row = {"stage": result.name, "density_of_all": result.density_of_all, **dataclasses.asdict(mean)}
        rows.append({**row, "difference_to_dense": change, "half_95_interval": half})
    return rows
