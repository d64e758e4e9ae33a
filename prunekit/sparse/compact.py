"""Compact: leave out the channels of a pruned network that cannot influence its output, and prove that nothing changed.

Pruning single weights empties whole filters and whole columns on the way. Those are found in a traced graph (see
``prunekit.sparse.channels``), cut out of a copy, and the copy is run beside the original in float64.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from prunekit.errors import CheckpointError
from prunekit.masks import Masks
from prunekit.select import canonical, parameters
from prunekit.shape import Shape
from prunekit.sizes import size_at, sizes_of, tensors_of
from prunekit.sparse.channels import Flow, Found
from prunekit.sparse.proof import prove
from prunekit.sparse.rules import RULES
from prunekit.trace import arguments, operator_of, stored_in, traced


@final
@dataclass(frozen=True, eq=False)
class Compacted:
    """A smaller network that computes the same, and what makes it from the dense one.

    Args:
        model: of the same class as the original, in eval mode.
        shape: what is kept of the original's parameters and buffers.
        biases: those that took up constant inputs, under canonical names, in their new shape.
        masks: the masks in their new shape.
        removed: output channels of convolutions and linear layers that are gone.
        difference: largest difference of the outputs in float64, as a share of the largest output.
    """

    model: nn.Module
    shape: Shape
    biases: Mapping[str, Tensor]
    masks: Masks
    removed: int
    difference: float


def compact(model: nn.Module, example: Any, masks: Masks) -> Compacted:
    """Return a copy of the network, cut by ``masks``, without the channels that cannot influence its output.

    What goes: channels that nothing reads, or of which all that is read is zero or a constant that a bias can take up.
    What stays: whatever an operator mixes in a way that is not understood here, such as a norm over channels or an
    attention, where a channel of zeros is not an absent one.

    Args:
        model: on any device; weights, buffers and modes stay as they are.
        example: one input with a batch axis, as ``model(example)`` takes it.
        masks: applied to the copy first; a weight that is zero anyway counts as cut.

    Raises:
        CheckpointError: the network cannot be traced, its code insists on its sizes, or the smaller network's outputs
            differ from the original's by more than 1e-10 in float64.
        MaskError: the masks do not fit the model.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> masks = Masks({"2.weight": torch.tensor([[True, True, True, False]] * 2)})
        >>> small = compact(model, torch.zeros(1, 3), masks)
        >>> small.removed, small.model[0], small.model[2]
        (1, Linear(in_features=3, out_features=3, bias=True), Linear(in_features=3, out_features=2, bias=True))
    """
    dense = _copied(model).eval()
    masks.apply_(dense)
    program = _trace(dense, example)
    try:
        return _compacted(dense, example, masks, program, trusting=True)
    except CheckpointError:  # perhaps a reshape or a split has its sizes from elsewhere: leave alone what they handle
        return _compacted(dense, example, masks, program, trusting=False)


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as cause:  # e.g. old-style weight norm, which cannot be copied
        first = str(cause).strip().partition("\n")[0]
        raise CheckpointError(f"this network cannot be copied ({first}): export it without --compact.") from cause


def _trace(model: nn.Module, example: Any) -> ExportedProgram:
    try:
        return traced(model, example)
    except CheckpointError as error:
        raise CheckpointError(f"{error} Its dead channels cannot be found: export it without --compact.") from error


def _compacted(dense: nn.Module, example: Any, masks: Masks, program: ExportedProgram, *, trusting: bool) -> Compacted:
    flow = _flow(dense, masks, program, trusting=trusting)
    live = flow.live()
    shape = _shape(dense, flow, live)
    exact = _biases(flow, live, shape)
    doubled = copy.deepcopy(dense).cpu().double()
    smaller = copy.deepcopy(doubled)
    _fill_(smaller, shape, exact)
    difference = prove(doubled, smaller, example)
    biases = {name: _rounded(name, bias, flow.weights[name].dtype) for name, bias in exact.items()}
    model = copy.deepcopy(dense)
    _fill_(model, shape, biases)
    removed = sum(
        int((~live[flow.parameters[name, axis]]).sum())
        for (name, attribute), axis in flow.attributes.items()
        if attribute in {"out_channels", "out_features"}
    )
    return Compacted(model, shape, biases, Masks(shape.select(masks)), removed, difference)


def _flow(dense: nn.Module, masks: Masks, program: ExportedProgram, *, trusting: bool) -> Flow:
    """Walk through the graph with the rules."""
    tensors = stored_in(dense, program)
    weights = {name: tensor.detach().cpu() for name, tensor in tensors_of(dense).items()}
    readers: Counter[str] = Counter()
    for node, name in tensors.items():
        readers[name] += len(node.users)
    foldable = frozenset(name for name, count in readers.items() if count == 1 and name not in masks)
    flow = Flow(tensors, weights, foldable, trusting)
    state = {canonical(name) for name in dense.state_dict()}
    for node, name in tensors.items():
        if name not in state:  # a buffer that no file holds
            flow.freeze(node)
    for node in program.graph.nodes:
        if node.op == "call_function":
            flow.values[node] = _visit(flow, node)
        elif node.op == "output":
            for result in node.all_input_nodes:
                flow.freeze(result)
    return flow


def _visit(flow: Flow, node: Node) -> Found:
    """Apply the operator's rule; keep all its inputs whole if there is none, or if it knows nothing."""
    if operator_of(node) == "_assert_tensor_metadata":
        return None
    if node.target is operator.getitem:
        whole, index = node.args
        parts = flow.values.get(whole) if isinstance(whole, Node) else None
        return parts[index] if isinstance(parts, list) and isinstance(index, int) else None
    rule = RULES.get(operator_of(node))
    found = rule(flow, node, arguments(node)) if rule else None
    if found is None:
        for operand in node.all_input_nodes:
            flow.freeze(operand)
    return found


def _shape(dense: nn.Module, flow: Flow, live: Tensor) -> Shape:
    kept: dict[str, dict[int, Tensor]] = {}
    for (name, axis), slots in flow.parameters.items():
        if not live[slots].all():
            kept.setdefault(name, {})[axis] = live[slots].nonzero().flatten()
    names = {id(tensor): name for name, tensor in tensors_of(dense).items()}
    attributes: dict[str, int] = {}
    for path, module in sizes_of(dense).items():
        attribute = path.rpartition(".")[2]
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            name = names[id(tensor)]
            axis = flow.attributes.get((name, attribute), -1)
            if axis in kept.get(name, {}) and size_at(module, attribute) == tensor.shape[axis]:
                attributes[path] = len(kept[name][axis])
    return Shape(kept, attributes, Shape.dense(dense).sizes)


def _biases(flow: Flow, live: Tensor, shape: Shape) -> dict[str, Tensor]:
    """Return name -> bias in float64, in its new shape, with what the constant columns that go had added to it."""
    biases = {}
    for fold in flow.folds:
        amounts = fold.amounts[:, ~live[fold.columns]].sum(1)
        if amounts.any():
            biases[fold.bias] = flow.weights[fold.bias].double() + amounts
    return shape.select(biases)


def _rounded(name: str, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a bias in the type that it is to have; the proof was about the exact one."""
    rounded = bias.to(dtype)
    if not torch.allclose(rounded.double(), bias, rtol=torch.finfo(dtype).eps, atol=0):
        raise CheckpointError(f"{name!r} cannot take up the constants before it in {dtype}: export without --compact.")
    return rounded


def _fill_(model: nn.Module, shape: Shape, biases: Mapping[str, Tensor]) -> None:
    shape.apply_(model)
    named = parameters(model)
    with torch.no_grad():
        for name, bias in biases.items():
            named[name].copy_(bias)
