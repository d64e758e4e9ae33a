"""What a network cost before channels were removed: what the figures of the smaller one are shares of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from prunekit.errors import CheckpointError
from prunekit.measure import count_macs
from prunekit.rewind import state
from prunekit.select import parameters
from prunekit.sparse.ticket import Ticket


@final
@dataclass(frozen=True)
class Before:
    """The network that a ticket names, before channels were removed.

    Args:
        parameters: their entries.
        bytes: of its parameters and buffers, stored densely in their own types.
        macs: shape of an input -> multiply-adds of one forward pass.
    """

    parameters: int
    bytes: int
    macs: Mapping[tuple[int, ...], int]


def before(ticket: Ticket, shapes: Sequence[Sequence[int]]) -> Before | None:
    """Count what the dense network costs; None where no channels were removed.

    Args:
        ticket: names its network, which is built.
        shapes: of inputs with batch axis, which the smaller network takes.

    Raises:
        CheckpointError: the ticket names no network, or the network does not take such an input.
        RecipeError, PluginError: that network, or one of its options, is not known here.

    Example:
        >>> from prunekit.sparse.source import load
        >>> ticket = load("linear", network="{name: 'python:torch.nn:Linear', in_features: 4, out_features: 2}")
        >>> before(ticket, [(1, 4)]) is None
        True
    """
    if not ticket.about.compacted:
        return None
    model = ticket.dense_model()
    try:
        macs = {tuple(shape): count_macs(model, ticket.example(shape)).dense for shape in shapes}
    except Exception as cause:  # whatever the network's own code raises
        raise CheckpointError(f"the network without its channels removed does not run here: {cause}.") from cause
    return Before(
        parameters=sum(parameter.numel() for parameter in parameters(model).values()),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in state(model).values()),
        macs=macs,
    )
