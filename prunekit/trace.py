"""Tracing: the graph of one forward pass, in which no operator writes to its inputs."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import Node

from prunekit.errors import CheckpointError
from prunekit.sizes import tensors_of


def traced(model: nn.Module, example: Any) -> ExportedProgram:
    """Return the graph of ``model(example)`` in eval mode; the model stays as it is.

    Args:
        model: on any device.
        example: one input with a batch axis.

    Raises:
        CheckpointError: it cannot be copied or traced; says why, in ``torch.export``'s words.

    Example:
        >>> program = traced(nn.Linear(3, 2), torch.zeros(1, 3))
        >>> [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
        ['aten.linear.default']
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            found = torch.export.export(copy.deepcopy(model).eval(), (example,), strict=False)
            functional: ExportedProgram = found.run_decompositions({})
            return functional
    except Exception as cause:  # torch.export raises what it likes, and so may the model
        first = str(cause).strip().partition("\n")[0]
        raise CheckpointError(f"torch.export cannot trace this network ({type(cause).__name__}: {first}).") from cause


def stored_in(model: nn.Module, program: ExportedProgram) -> dict[Node, str]:
    """Return placeholder -> canonical name of its parameter or buffer; tied ones have one name."""
    first = {id(tensor): name for name, tensor in tensors_of(model).items()}
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    names = {name: first[id(tensor)] for name, tensor in named}
    signature = program.graph_signature
    targets = signature.inputs_to_parameters | signature.inputs_to_buffers
    found = {node: targets.get(node.name) for node in program.graph.nodes if node.op == "placeholder"}
    return {node: names[target] for node, target in found.items() if target is not None}


def arguments(node: Node) -> dict[str, Any]:
    """Return an operator's arguments by the names in its schema, defaults filled in."""
    schema = node.target._schema  # type: ignore[union-attr]
    given = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
    return given | dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)) | node.kwargs


def operator_of(node: Node) -> str:
    """Return an operator's name without its overload, e.g. ``"add"``; an empty text for what has no schema."""
    schema = getattr(node.target, "_schema", None)
    return "" if schema is None else str(schema.name).removeprefix("aten::")


def shape_of(node: Node) -> tuple[int, ...]:
    """Return the shape of a value."""
    return tuple(node.meta["val"].shape)
