"""The tables of a study's report."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from prunekit.report.table import Group, Table
from prunekit.study.arms import DENSE
from prunekit.study.overlap import Overlap, Shared
from prunekit.study.results import ArmResult, Decision, Gap, steps_with_needs
from prunekit.study.stats import Difference


def costs(arms: Mapping[str, ArmResult]) -> Table:
    """Return every arm's density, steps and time."""
    rows = [
        (
            arm.name,
            f"{len(arm.stages)}",
            f"{100 * arm.density_of_all(-1):.2f} %",
            f"{arm.steps_after:,}",
            f"{steps_with_needs(arm, arms):,}",
            f"{len(arm.stages) * arm.steps:,}",
            duration(arm.seconds),
        )
        for arm in arms.values()
    ]
    steps = sum(len(arm.stages) * arm.steps for arm in arms.values())
    rows.append(("all", "", "", "", "", f"{steps:,}", duration(sum(arm.seconds for arm in arms.values()))))
    header = ("arm", "seeds", "left of all", "steps after the last cut", "steps of a seed, with all that it needs")
    return Table((*header, "its own steps, all seeds", "time of its own stages"), tuple(rows))


def verdicts(decisions: Sequence[Decision], named: Mapping[Group, str], places: int) -> Table:
    """Return what is decided of each ticket on each task, by which differences, and the least that could be told."""
    others = list(dict.fromkeys(name for each in decisions for name in (*each.against, *each.missing)))
    rows = []
    for decision in decisions:
        cells = [
            f"{text(decision.against[name], places)} ({decision.verdicts[name]})"
            if name in decision.against
            else "missing"
            for name in others
        ]
        rows.append((decision.arm, named[decision.group], f"**{decision.winning}**", *cells, _least(decision, places)))
    header = ("arm", "task", "winning?", *(f"better than {name} by" for name in others), "smallest that could be told")
    return Table(header, tuple(rows))


def _least(decision: Decision, places: int) -> str:
    dense = [each.half for name, each in decision.against.items() if name == DENSE]
    controls = [each.half for name, each in decision.against.items() if name != DENSE]
    if math.inf in (*dense, *controls):
        return "none"
    parts = [f"{half:.{places}f} from dense" for half in dense]
    return ", ".join([*parts, *([f"{max(controls):.{places}f} from the controls"] if controls else [])])


def against_dense(dense: Mapping[Group, float], gaps: Sequence[Gap], named: Mapping[Group, str], places: int) -> Table:
    """Return each arm's differences to dense at each density, below the dense network's own means."""
    lines = [(DENSE, "100 %", *(f"{dense[group]:.{places}f}" for group in named))]
    for arm, density in dict.fromkeys((gap.arm, gap.density) for gap in gaps):
        of_point = [gap for gap in gaps if (gap.arm, gap.density) == (arm, density)]
        lines.append((arm, f"{100 * density:.2f} %", *_cells(of_point, named, places)))
    return Table(("arm", "left of all", *named.values()), tuple(lines))


def transferred(
    each: Mapping[str, str], found: Mapping[str, Sequence[Gap]], named: Mapping[Group, str], higher: bool, places: int
) -> Table:
    """Return, for every source of a ticket, how it does on each task trained alone; ``each`` names the sources."""
    rows = [(each[source], *_cells(gaps, named, places, higher=higher)) for source, gaps in found.items()]
    return Table(("ticket of", *(f"on {label}" for label in named.values())), tuple(rows))


def interfering(
    found: Sequence[Sequence[Gap]], grown: Sequence[Gap], named: Mapping[Group, str], higher: bool, places: int
) -> Table:
    """Return, density by density, how the network of all tasks does beside that of each, and how that has changed."""
    rows = [(f"{100 * gaps[0].density:.2f} %", *_cells(gaps, named, places, higher=higher)) for gaps in found]
    if grown:
        change = f"change, {100 * found[0][0].density:.0f} % to {100 * grown[0].density:.2f} %"
        rows.append((change, *_cells(grown, named, places, higher=higher)))
    return Table(("left of all", *named.values()), tuple(rows))


def overlapping(found: Sequence[Overlap]) -> Table:
    """Return what each pair of tickets has in common, and the tensors farthest above and below chance."""
    rows = []
    for overlap in found:
        totals = overlap.totals().values()
        shares = [total.of_either for total in totals]
        chance = statistics.fmean(total.chance for total in totals)
        spread = f" ({100 * min(shares):.1f} to {100 * max(shares):.1f})" if len(shares) > 1 else ""
        kept = overlap.layers()
        least = sum(layer.first + layer.second for layer in kept.values()) / 100
        large = [(name, layer) for name, layer in kept.items() if layer.first + layer.second >= least]
        layers = large or list(kept.items())  # many tensors of about one size
        layers.sort(key=lambda item: item[1].of_either - item[1].chance)
        ends = (_layer(*layers[-1]), _layer(*layers[0]))
        mean = statistics.fmean(shares)
        rows.append(
            (f"{overlap.first}, {overlap.second}", f"{100 * mean:.1f} %{spread}", f"{100 * chance:.1f} %", *ends)
        )
    return Table(("tickets of", "in common", "by chance", "tensor most above chance", "tensor least"), tuple(rows))


def duration(seconds: float) -> str:
    """Write a time.

    Example:
        >>> duration(75.2), duration(4284)
        ('75 s', '71.4 min')
    """
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def text(difference: Difference, places: int) -> str:
    """Write a difference and half its interval."""
    half = f" ± {difference.half:.{places}f}" if math.isfinite(difference.half) else " (one seed or item: no interval)"
    return f"{difference.mean:+.{places}f}{half}"


def _cells(gaps: Sequence[Gap], named: Mapping[Group, str], places: int, *, higher: bool = True) -> list[str]:
    found = {gap.group: text(gap.difference.oriented(higher), places) for gap in gaps}
    return [found.get(group, "-") for group in named]


def _layer(name: str, shared: Shared) -> str:
    return f"`{name}` {100 * shared.of_either:.1f} % (chance {100 * shared.chance:.1f} %)"
