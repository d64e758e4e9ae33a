"""A bench as CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from typing import Any

from prunekit.bench.result import Bench, shape_text


def bench_csv(found: Bench) -> str:
    """Return a line for each row, with everything about the network and the machine repeated; failures stay empty."""
    lines: list[dict[str, Any]] = []
    before = found.before
    for row in found.rows:
        case, (low, median, high) = row.case, row.quartiles_ms if row.times_ms else (None, None, None)
        size, macs = found.sizes[case.density], found.macs[case.shape, case.density]
        lines.append(
            {
                "source": found.source,
                "backend": case.backend,
                "input": shape_text(case.shape),
                "threads": case.threads,
                "density": size.density,
                "median_ms": median,
                "quartile1_ms": low,
                "quartile3_ms": high,
                "min_ms": min(row.times_ms, default=None),
                "passes": len(row.times_ms),
                "speedup_over_eager": row.faster_than(found.eager(case.setting)),
                "speedup_over_best_dense": row.faster_than(found.best_dense(case.setting)),
                "peak_mib": row.peak_mib,
                "max_difference": row.difference,
                "failure": row.failure,
                **asdict(size),
                "kept_of_all": size.kept_of_all,
                "macs_dense": macs.dense,
                "macs_kept": macs.kept,
                "parameters_before": before.parameters if before else size.parameters,
                "macs_before": before.macs[case.shape] if before else macs.dense,
                "cpu": found.machine.cpu,
                "versions": " ".join(f"{name}={version}" for name, version in found.machine.versions.items()),
            }
        )
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
