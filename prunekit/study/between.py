"""What the arms of single tasks tell: tickets on other tasks, and what the tasks of one network cost each other."""

from __future__ import annotations

from collections.abc import Mapping

from prunekit.report.table import Group
from prunekit.study.arms import DENSE, TICKET
from prunekit.study.results import ArmResult, Gap, gaps
from prunekit.study.single import ALL, RANDOM, Each
from prunekit.study.stats import Values, comparable, paired


def owners(each: Each, arms: Mapping[str, ArmResult], metric: str) -> dict[Group, str]:
    """Return (task, data set) -> the name under which it is trained alone; what several of them measure is left out."""
    found: dict[Group, list[str]] = {}
    for value in each.values:
        if each.dense(value) in arms:
            for group in arms[each.dense(value)].groups(metric):
                found.setdefault(group, []).append(value)
    return {group: values[0] for group, values in found.items() if len(values) == 1}


def transfers(each: Each, arms: Mapping[str, ArmResult], metric: str, *, against: str = DENSE) -> dict[str, list[Gap]]:
    """Return source -> the gaps of its ticket, trained on each task alone, to another arm of that task.

    The sources are the tasks, `ALL` (the ticket of the network of all tasks) and `RANDOM` (random places). A task's
    ticket on that task itself is the last one of its own iterative pruning. The other arm is the dense network of the
    task, or that of random places (`RANDOM`), which has no gap to itself.
    """
    own = owners(each, arms, metric)
    found: dict[str, list[Gap]] = {}
    for source in (*each.values, ALL, RANDOM):
        for value in each.values:
            arm = each.ticket(value) if source == value else each.transfer(source, value)
            other = each.dense(value) if against == DENSE else each.transfer(against, value)
            if arm in arms and other in arms and arm != other:
                groups = [group for group, owner in own.items() if owner == value]
                found.setdefault(source, []).extend(gaps(arms[arm], -1, arms[other], -1, groups, metric))
    return found


def interference(each: Each, arms: Mapping[str, ArmResult], metric: str) -> list[list[Gap]]:
    """Return the gaps of the network of all tasks to each single one: of the dense ones, then of each density.

    Both have the same density and as many steps: the gap is what the other tasks cost or give.
    """
    own = owners(each, arms, metric)
    points = min((arms[name].points for name in _tickets(each) if name in arms), default=0)
    found: list[list[Gap]] = [[] for _ in range(1 + points)]
    for value in each.values:
        groups = [group for group, owner in own.items() if owner == value]
        if DENSE in arms and each.dense(value) in arms:
            found[0] += gaps(arms[DENSE], -1, arms[each.dense(value)], -1, groups, metric)
        if TICKET in arms and each.ticket(value) in arms:
            for point in range(points):
                found[1 + point] += gaps(arms[TICKET], point, arms[each.ticket(value)], point, groups, metric)
    return [gap for gap in found if gap]


def growth(each: Each, arms: Mapping[str, ArmResult], metric: str) -> list[Gap]:
    """Return how `interference` has changed from the dense networks to the last tickets, paired as all is."""
    found = []
    for group, value in owners(each, arms, metric).items():
        names = (TICKET, each.ticket(value), DENSE, each.dense(value))
        if any(name not in arms for name in names):
            continue
        last, alone, dense, dense_alone = (arms[name].values(-1, group, metric) for name in names)
        late, early = _less(last, alone), _less(dense, dense_alone)
        if comparable(late, early):
            density = arms[TICKET].density_of_all(-1)
            found.append(Gap(TICKET, density, f"{DENSE}, less alone", group, metric, paired(late, early)))
    return found


def _less(mine: Values, other: Values) -> Values:
    return {key: value - other[key] for key, value in mine.items() if key in other}


def descents(each: Each, arms: Mapping[str, ArmResult], metric: str) -> list[Gap]:
    """Return the gaps of each task's own tickets, at every density, to its dense network."""
    own = owners(each, arms, metric)
    found = []
    for value in each.values:
        if each.ticket(value) in arms and each.dense(value) in arms:
            ticket, dense = arms[each.ticket(value)], arms[each.dense(value)]
            groups = [group for group, owner in own.items() if owner == value]
            for point in range(ticket.points):
                found += gaps(ticket, point, dense, -1, groups, metric)
    return found


def _tickets(each: Each) -> tuple[str, ...]:
    return (TICKET, *map(each.ticket, each.values))
