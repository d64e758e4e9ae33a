"""Fitting: smaller networks are tried; where a module's code does not take fewer channels, more stay."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.fx import Graph

from prunekit.budget import Limit
from prunekit.errors import PruneKitWarning, SelectionError
from prunekit.structured.choose import Choice
from prunekit.structured.declare import Declared
from prunekit.structured.find import Found, concluded, walked
from prunekit.structured.layers import elementwise
from prunekit.structured.resize import resized
from prunekit.structured.rules import rule_of
from prunekit.structured.slots import Ids
from prunekit.structured.trial import MisfitError, run, shrunk
from prunekit.structured.units import Units, united
from prunekit.structured.walk import Walk, is_tensor, modules_of
from prunekit.trace import traced

CODE, PROPORTION, INPUTS = 1, 2, 3
"""Ways to hold a class, in turn: what its code reshapes stays; shrinks as what enters does; stays, as does what enters.
"""


def find_fitting(
    model: nn.Module,
    example: Any,
    *,
    exclude: tuple[str, ...] = (),
    declared: Declared | None = None,
    limit: Limit | None = None,
) -> Found:
    """Find what goes together in the graph of `torch.export`; let more stay until the network's code takes the rest.

    The smallest network and one with uneven shares of its channels are run. Where the code of a module fails, as it
    has sizes that no parameter shows, its class is held in one way after the other, with a warning; declarations are
    better.

    Args:
        model, example, exclude, declared, limit: as `prunekit.structured.find.Finder`.

    Raises:
        CheckpointError: the network cannot be traced.
        SelectionError: as `prunekit.structured.find.Finder`; or a module's code fails however much of it stays.

    Example:
        >>> import torch
        >>> found = find_fitting(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)), torch.zeros(1, 3))
        >>> {axis: ids.tolist() for axis, ids in found.axes.items()}
        {('0.weight', 0): [1, 2], ('0.bias', 0): [1, 2], ('2.weight', 1): [1, 2]}
    """
    program = traced(model, example)
    strict: dict[str, int] = {}
    while True:
        walk = walked(model, program, limit or Limit())
        _hold(walk, program.graph, strict)
        found = concluded(walk, model, exclude, declared or {})
        try:
            _try(model, found, declared or {}, example)
        except MisfitError as misfit:
            strict[misfit.kind] = strict.get(misfit.kind, 0) + 1
            if strict[misfit.kind] > INPUTS:
                raise SelectionError(str(misfit)) from misfit
        else:
            break
    if strict:
        warnings.warn(_note(strict), PruneKitWarning, stacklevel=2)
    return found


def _try(model: nn.Module, found: Found, declared: Declared, example: Any) -> None:
    units = united(found, lambda name: None)
    choice = Choice(units, "local", 1, 1)
    for kept in (choice.kept(choice.order()), _uneven(units)):
        run(shrunk(model, resized(model, found, units, kept, declared)), example)


def _uneven(units: Units) -> NDArray[np.bool_]:
    """Return a choice of other shares of one group than of the next: code may count on equal ones."""
    kept = np.ones(len(units.worth), dtype=bool)
    for group in range(units.groups.max() + 1):
        (members,) = np.nonzero(units.groups[1:] == group)
        kept[1 + members[: len(members) * (1 + group % 3) // 4]] = False
    return kept


def _hold(walk: Walk, graph: Graph, strict: Mapping[str, int]) -> None:
    """Note what the modules of some classes need beyond what the graph shows."""
    entering: dict[str, list[Ids]] = {}
    reshaped: dict[str, list[Ids]] = {}
    for node in graph.nodes:
        modules = modules_of(node) if node.op == "call_function" else {}
        for place, (path, kind) in enumerate(modules.items(), 1):
            how = strict.get(kind)
            own = place == len(modules) and rule_of(node) is not elementwise
            for operand in filter(is_tensor, node.all_input_nodes):
                given = operand not in walk.stored
                enters = given and path not in modules_of(operand)
                if how == PROPORTION and (enters or (own and given)):
                    widths = (entering if enters else reshaped).setdefault(path, [])
                    widths.extend(track.slots.ravel() for track in walk.tracks(operand))
                elif (how == INPUTS and enters) or (how in {CODE, INPUTS} and own):
                    walk.keep(operand)
            if how in {CODE, INPUTS} and own:
                walk.keep(node)
    for path, widths in reshaped.items():
        whole = [] if entering.get(path) else [np.zeros(1, dtype=np.int64)]
        walk.slots.in_proportion([*whole, *entering.get(path, []), *widths])


def _note(strict: Mapping[str, int]) -> str:
    how = {CODE: "stays whole", PROPORTION: "shrinks as its inputs do", INPUTS: "stays whole, its inputs too"}
    held = "; ".join(f"{kind} {how[level]}" for kind, level in strict.items())
    return f"code with sizes that no parameter shows: {held}. Declare them with prunekit.Channels to cut more there."
