"""What of a cost can be counted instead of timed."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunekit.bench.backends import known_backends
from prunekit.bench.cuts import at_density
from prunekit.bench.result import Machine, Shape, Size, shape_text
from prunekit.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

    from prunekit.measure import Macs
    from prunekit.sparse.ticket import Ticket


def count_macs(ticket: Ticket, model: nn.Module, shapes: Sequence[Shape]) -> dict[Shape, dict[str, int]]:
    """Return shape -> tensor -> multiply-adds; by default for the ticket's own shape and, if taken, an image twice it.

    Raises:
        RecipeError: the network does not take such an input.
    """
    from prunekit.measure import macs_per_tensor

    own = tuple(ticket.example().shape) if not shapes else ()
    costs: dict[Shape, dict[str, int]] = {}
    for shape in map(tuple, shapes or (own, *([(*own[:2], 2 * own[2], 2 * own[3])] if len(own) == 4 else []))):
        try:
            counts = macs_per_tensor(model, ticket.example(shape))
        except Exception as cause:
            if costs and not shapes:
                continue  # a network of one input size
            first = (str(cause).strip() or type(cause).__name__).splitlines()[0]
            raise RecipeError(
                f"the network does not take an input of shape {shape_text(shape)} ({first}); give another --shape."
            ) from cause
        costs[shape] = {name: each.dense for name, each in counts.items()}
    return costs


def measure_sizes(
    ticket: Ticket, model: nn.Module, densities: Sequence[float], costs: Mapping[Shape, Mapping[str, int]]
) -> tuple[dict[float, Size], dict[tuple[Shape, float], Macs]]:
    """Return what is left at each density: parameters and bytes of the files that an export writes; multiply-adds.

    Args:
        ticket, model: the source, and its network.
        densities: as `at_density` takes them.
        costs: what `count_macs` returned.
    """
    from prunekit.files import write_tensors
    from prunekit.measure import Macs
    from prunekit.select import parameters
    from prunekit.sparse.ticket_file import save_ticket

    total = sum(parameter.numel() for parameter in parameters(model).values())
    sizes: dict[float, Size] = {}
    macs: dict[tuple[Shape, float], Macs] = {}
    with tempfile.TemporaryDirectory(prefix="prunekit-bench-") as folder:
        dense, sparse = Path(folder, "dense"), Path(folder, "sparse")
        write_tensors(dense, {name: t.float() if t.is_floating_point() else t for name, t in ticket.tensors.items()})
        for density in densities:
            cut = at_density(ticket, density)
            save_ticket(cut, sparse)
            bytes_dense, bytes_sparse = dense.stat().st_size, sparse.stat().st_size
            sparse.unlink()
            sizes[density] = Size(total, cut.masks.prunable, cut.masks.kept, bytes_dense, bytes_sparse)
            kept = {name: count / max(1, whole) for name, (count, whole) in cut.masks.per_tensor().items()}
            for shape, counts in costs.items():
                left = sum(round(count * kept.get(name, 1)) for name, count in counts.items())
                macs[shape, density] = Macs(sum(counts.values()), left)
    return sizes, macs


def this_machine(chosen: Sequence[str]) -> Machine:
    """Return where we are, with the version of each engine."""
    from importlib.metadata import version

    import torch

    from prunekit.environment import cpu_name

    engines = [name for name in chosen if known_backends()[name].packages]
    return Machine(cpu_name(), {"torch": torch.__version__} | {name: version(name) for name in engines})
