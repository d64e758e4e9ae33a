"""The network at other densities than the source has: cut further, or filled where it was cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from prunekit.errors import RecipeError

if TYPE_CHECKING:
    from prunekit.sparse.ticket import Ticket

FILL = 1e-3
"""Standard deviation of the weights that fill a cut network: not zero, and too small to blow anything up."""


def choose_densities(ticket: Ticket, asked: Sequence[float]) -> tuple[float, ...]:
    """Return the densities to measure, the densest first; the ticket's own (its ``masks.density``) if none is asked.

    Raises:
        RecipeError: one is not in (0, 1], or above the ticket's.
    """
    own, masks = ticket.masks.density, ticket.masks
    room = len(masks) / 2 / max(1, masks.prunable)  # counts were rounded tensor by tensor
    for density in asked:
        if not 0 < density <= 1:
            raise RecipeError(f"--density must be above 0 and at most 1, not {density:g}: it is the share kept.")
        if density > own + room:
            raise RecipeError(
                f"--density {density:g} is more than the source has: it keeps {own:.2%} of its prunable weights, and "
                "what was cut is gone. Ask for less, or bench the dense network."
            )
    chosen = {own if abs(density - own) <= room else float(density) for density in asked or (own,)}
    return tuple(sorted(chosen, reverse=True))


def at_density(ticket: Ticket, density: float) -> Ticket:
    """Return the ticket at a density, the same in every process.

    Args:
        ticket: any.
        density: below the ticket's own, every tensor is cut to it by magnitude (one that has less stays); above it,
            every zero of the prunable weights becomes small seeded noise, and nothing counts as cut.

    Example:
        >>> import torch
        >>> from prunekit.masks import Masks
        >>> from prunekit.sparse.ticket import About, Ticket
        >>> model = torch.nn.Linear(4, 4)
        >>> at_density(Ticket.of(model, Masks.dense(model), About()), 0.25).masks
        Masks(4 of 16 kept, 1 tensors)
    """
    import torch

    from prunekit.allocate import per_layer
    from prunekit.amount import Density
    from prunekit.masks import Masks

    own, masks, tensors = ticket.masks.density, ticket.masks, dict(ticket.tensors)
    if density == own:
        return ticket
    if density < own:
        masks = per_layer()({name: tensors[name].abs() for name in masks}, masks, Density(density))
        tensors |= {name: torch.where(mask, tensors[name], 0) for name, mask in masks.items()}
        return replace(ticket, tensors=tensors, masks=masks)
    generator = torch.Generator().manual_seed(0)
    for name in masks:
        noise = FILL * torch.randn(tensors[name].shape, generator=generator)
        tensors[name] = torch.where(tensors[name] == 0, noise.to(tensors[name].dtype), tensors[name])
    full = Masks({name: torch.ones_like(mask) for name, mask in masks.items()})
    return replace(ticket, tensors=tensors, masks=full)
