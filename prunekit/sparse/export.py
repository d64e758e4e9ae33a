"""What ``prunekit export`` writes: a ticket's sparse file, its dense weights, or an ONNX model; each is read back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from prunekit.errors import CheckpointError, PruneKitError
from prunekit.files import read_tensors, refuse_existing, write_tensors
from prunekit.sparse.compact import Compacted, compact
from prunekit.sparse.ticket import Ticket
from prunekit.sparse.ticket_file import cast, read_ticket, save_ticket


@final
@dataclass(frozen=True)
class Written:
    """A file that was written and read back.

    Args:
        bytes: of the file.
        dense_bytes: of the same tensors, stored densely in their own types.
        tensors: how many.
        weight_error: largest absolute difference of any value, and the tensor's name; 0 where the file is lossless.
        relative_error: largest of such differences over the largest value of its tensor, and that one's name.
        output_error: largest absolute difference of the network's output on `Ticket.example`; None where no error was
            made, or the network cannot be built here.
        output_scale: the output's largest absolute value.
    """

    bytes: int
    dense_bytes: int
    tensors: int
    weight_error: tuple[float, str]
    relative_error: tuple[float, str]
    output_error: float | None = None
    output_scale: float | None = None


def export_sparse(ticket: Ticket, path: Path, *, dtype: torch.dtype | None = None) -> Written:
    """Write a ticket file and compare what it holds with the ticket; see `save_ticket` for arguments and errors."""
    save_ticket(ticket, path, dtype=dtype)
    return _compared(ticket, replace(read_ticket(path), trusted=ticket.trusted), path)


def export_dense(ticket: Ticket, path: Path, *, dtype: torch.dtype | None = None) -> Written:
    """Write every tensor, zeros and all, under its own name to a plain safetensors file, for other programs.

    Args:
        ticket: anything; what it says of itself goes into the header, under ``about``.
        path: must not exist.
        dtype: of the floating-point tensors in the file; their own by default.

    Raises:
        CheckpointError: the file exists.
        Failed: the disk is full or refuses.
    """
    refuse_existing(path)
    stored = {name: cast(tensor, dtype, name) for name, tensor in ticket.tensors.items()}
    tied = {name: stored[first] for name, first in _tied(ticket).items() if name != first}
    write_tensors(path, {**stored, **tied}, {"format": "pt", "about": ticket.about.model_dump_json()})
    read = read_tensors(path)
    back = {name: read[name].to(tensor.dtype) for name, tensor in ticket.tensors.items()}
    return _compared(ticket, replace(ticket, tensors=back), path)


def _tied(ticket: Ticket) -> dict[str, str]:
    """Return each name in the network's ``state_dict`` -> the ticket's name for it; nothing if it cannot be built."""
    try:
        state = ticket.model().state_dict(keep_vars=True)
    except PruneKitError:
        return {}
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in state.items() if isinstance(tensor, Tensor)}


def compacted(ticket: Ticket) -> tuple[Ticket, Compacted]:
    """Remove the channels that can never influence the output; see `prunekit.sparse.compact.compact`.

    Raises:
        CheckpointError: the ticket names no network, or the result would differ; see there.
    """
    made = compact(ticket.model(), ticket.example(), ticket.masks)
    about = ticket.about.shrunk(made.shape)
    smaller = Ticket.of(made.model, made.masks, about)
    return replace(smaller, trusted=ticket.trusted), made


def _compared(ticket: Ticket, back: Ticket, path: Path) -> Written:
    """Compare a ticket with what came back from its file."""
    if back.tensors.keys() != ticket.tensors.keys() or back.masks != ticket.masks:
        raise CheckpointError(f"{path} does not hold what was written to it: the disk is damaged; write it elsewhere.")
    errors = {name: _error(tensor, back.tensors[name]) for name, tensor in ticket.tensors.items()}
    written = Written(
        bytes=path.stat().st_size,
        dense_bytes=sum(tensor.numel() * tensor.element_size() for tensor in ticket.tensors.values()),
        tensors=len(errors),
        weight_error=max(((error, name) for name, (error, _) in errors.items()), default=(0.0, "")),
        relative_error=max(
            ((error / scale, name) for name, (error, scale) in errors.items() if scale), default=(0.0, "")
        ),
    )
    if not written.weight_error[0]:
        return written
    try:
        error, scale = _error(ticket.output(), back.output())
    except PruneKitError:  # the file is good all the same; only this figure is missing
        return written
    return replace(written, output_error=error, output_scale=scale)


def _error(before: Tensor, after: Tensor) -> tuple[float, float]:
    """Return the largest absolute difference, and the largest absolute value, both over finite values."""
    if torch.equal(before, after) or before.numel() == 0:
        return 0.0, 1.0
    wide = before.double()
    return float((wide - after.double()).abs().nan_to_num(nan=0.0).max()), float(wide.abs().max())
