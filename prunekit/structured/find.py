"""Finding: which indices of which axes of a network go together, by a walk through its graph."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
from torch import nn
from torch.export import ExportedProgram
from torch.fx import Node

from prunekit.budget import Limit
from prunekit.errors import SelectionError
from prunekit.select import canonical, matching, parameters
from prunekit.sizes import tensors_of
from prunekit.structured.declare import Declared, axis_of, declarations
from prunekit.structured.rules import rule_of
from prunekit.structured.slots import Ids
from prunekit.structured.ties import Ties, tied
from prunekit.structured.walk import Walk, is_tensor, module_of
from prunekit.trace import arguments, stored_in


@final
@dataclass(frozen=True, eq=False)
class Found:
    """What goes together in one network.

    Args:
        axes: (canonical name of a parameter or buffer, axis) -> for each index the number of its component; equal
            numbers go or stay together, 0 stays.
        ties: lanes of components that must shrink in proportion.
        sizes: path of an attribute -> the components that it counts.
        mixed: components over which the network normalises or averages: there a channel of zeros is not an absent one.
    """

    axes: dict[tuple[str, int], Ids]
    ties: Ties
    sizes: dict[str, Ids]
    mixed: Ids


class Finder(Protocol):
    """A way to find what goes together in a network."""

    def __call__(
        self,
        model: nn.Module,
        example: Any,
        *,
        exclude: tuple[str, ...] = (),
        declared: Declared | None = None,
        limit: Limit | None = None,
    ) -> Found:
        """Return what goes together; the model stays as it is.

        Args:
            model: on any device; only read.
            example: one input with a batch axis.
            exclude: globs over parameters whose channels all stay.
            declared: declarations for classes of modules, beside those that classes hold and known ones.
            limit: told which module is being looked at.

        Raises:
            CheckpointError: the finder cannot follow the network.
            SelectionError: a pattern matches nothing, or a declaration names what a module lacks.
        """


def walked(model: nn.Module, program: ExportedProgram, limit: Limit) -> Walk:
    """Return what a graph shows of its network."""
    walk = Walk(stored_in(model, program))
    for node in program.graph.nodes:
        limit.at = module_of(node) or limit.at
        if node.op == "call_function":
            walk.values[node] = _visit(walk, node)
        elif node.op == "output":
            walk.keep_inputs(node)
    return walk


def concluded(walk: Walk, model: nn.Module, exclude: tuple[str, ...], declared: Declared | None) -> Found:
    """Return what a walk found, with what modules declare; what is excluded, or held by no file, stays."""
    _keep_unsaved(walk, model)
    _declare(walk, model, declared or {})
    for pattern in exclude:
        for name in matching(pattern, parameters(model), "exclude"):
            _keep_all(walk, name)
    return _found(walk)


def _visit(walk: Walk, node: Node) -> Any:
    """Apply the operator's rule; without one let all channels of its inputs stay."""
    if node.target is operator.getitem:
        whole, index = node.args
        parts = walk.values.get(whole) if isinstance(whole, Node) else None
        return parts[index] if isinstance(parts, list) and isinstance(index, int) else ()
    if not any(walk.tracks(each) for each in node.all_input_nodes if is_tensor(each)):
        return ()
    rule = rule_of(node)
    if rule is None:
        walk.keep_inputs(node)
        return ()
    return rule(walk, node, arguments(node))


def _keep_unsaved(walk: Walk, model: nn.Module) -> None:
    """Let buffers that no file holds stay as they are."""
    saved = {canonical(name) for name in model.state_dict()}
    for name in {name for name, _ in walk.axes} - saved - parameters(model).keys():
        _keep_all(walk, name)


def _keep_all(walk: Walk, name: str) -> None:
    for (owner, _), slots in walk.axes.items():
        if owner == name:
            walk.slots.keep(slots)


def _declare(walk: Walk, model: nn.Module, declared: Declared) -> None:
    """Add what modules declare."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors_of(model).items()}

    def slots(path: str, axis: str) -> Ids:
        name, number = axis_of(model, path, axis)
        return walk.axis(name, number, shapes[name][number])

    for path, _, channels in declarations(model, declared):
        for group in channels.together:
            first, *others = (slots(path, axis) for axis in group)
            for axis, other in zip(group[1:], others, strict=True):
                if len(other) != len(first):
                    raise SelectionError(
                        f"{group[0]!r} and {axis!r} are declared to go together for {path or 'the network'}, but "
                        f"have lengths {len(first)} and {len(other)}; in_proportion takes such ones."
                    )
                walk.slots.couple(first, other)
        for group in channels.in_proportion:
            walk.slots.in_proportion([slots(path, axis) for axis in group])
        for name in channels.keep:
            full, _ = axis_of(model, path, f"{name}:0")
            for number, size in enumerate(shapes[full]):
                walk.slots.keep(walk.axis(full, number, size))


def _found(walk: Walk) -> Found:
    """Number the components that can go from 1 on, in the order in which they were met."""
    root, ties = tied(walk.slots, list(walk.axes.values()))
    numbers = np.zeros(len(root), dtype=np.int64)
    free = np.unique(np.concatenate([root[slots] for slots in walk.axes.values()] or [root[:1]]))
    numbers[free[free != 0]] = np.arange(1, 1 + int((free != 0).sum()))
    ids = numbers[root]
    axes = {axis: ids[slots] for axis, slots in walk.axes.items() if ids[slots].any()}
    mixed = np.unique(ids[np.concatenate(walk.slots.mixed)]) if walk.slots.mixed else ids[:1]
    sizes = {path: ids[slots.ravel()] for path, slots in walk.sizes.items()}
    return Found(axes, [[numbers[lane] for lane in lanes] for lanes in ties], sizes, mixed[mixed != 0])
