"""What the reports of a study say of its single tasks: one table after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

from prunekit.report.table import Group, Table
from prunekit.study import between, tables
from prunekit.study.measured import Metric, Results
from prunekit.study.overlap import Overlap, overlaps
from prunekit.study.results import Gap
from prunekit.study.single import ALL, RANDOM, Each

TRANSFER = (
    "Each ticket, taken from the network that is named left, is trained from the initialisation on one task alone and "
    "measured on it. Differences to that task's own dense network, positive where the ticket is better."
)
CHANCE = (
    "The same tickets less random places of the same density trained on the same task: positive where it matters which "
    "weights a ticket keeps."
)
INTERFERENCE = (
    "The network of all tasks less the network of that one task at the same density and after as many steps, of which "
    "the former shares its own among the tasks. Positive: the other tasks help; negative: they are in its way. The "
    "last line is how that changes as density falls."
)
OVERLAP = (
    "Weights that both tickets keep, as a share of those that either keeps; mean over the seeds (least to most). By "
    "chance: the same of tickets that keep as many weights of each tensor in random places. Tickets of a seed start "
    "from the same initialisation, so they have more in common than chance before any training. The tensors named are "
    "among those with a hundredth of the kept weights at least."
)


@final
@dataclass(frozen=True)
class Told:
    """One part: a title, how to read it, a table (perhaps without rows), and what a picture of it is drawn from.

    Args:
        named: the tasks that a network of one task alone measures, by their labels.
        mixed, shared: of `prunekit.study.plots.interference` and `prunekit.study.plots.overlap`.
    """

    title: str
    how: str
    table: Table
    named: Mapping[Group, str] = field(default_factory=dict)
    mixed: Sequence[Sequence[Gap]] = ()
    shared: Sequence[Overlap] = ()


def compared_alone(results: Results, each: Each, metric: Metric) -> Iterator[Told]:
    """Yield tickets on other tasks, one task beside all, and what tickets have in common, as far as there is any."""
    owned = between.owners(each, results.arms, metric.name)
    named = {group: label for group, label in metric.named.items() if group in owned}
    if not named:
        why = "No task is measured by one network of a single task alone: nothing to compare."
        yield Told("Between tasks", why, Table((), ()))
        return
    sources = {value: value for value in each.values} | {ALL: "all tasks", RANDOM: "none: random places"}
    moved = between.transfers(each, results.arms, metric.name)
    table = tables.transferred(sources, moved, named, metric.higher, metric.places)
    yield Told(f"Tickets on other tasks: {metric.name}", TRANSFER, table)
    if chance := between.transfers(each, results.arms, metric.name, against=RANDOM):
        table = tables.transferred(sources, chance, named, metric.higher, metric.places)
        yield Told(f"Tickets on other tasks, beside random places: {metric.name}", CHANCE, table)
    if mixed := between.interference(each, results.arms, metric.name):
        grown = between.growth(each, results.arms, metric.name)
        table = tables.interfering(mixed, grown, named, metric.higher, metric.places)
        yield Told(f"One task beside all: {metric.name}", INTERFERENCE, table, named, mixed=mixed)
    if shared := overlaps(each, results.arms):
        yield Told("What tickets have in common", OVERLAP, tables.overlapping(shared), shared=shared)
