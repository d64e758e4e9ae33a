"""What ``prunekit export`` writes: a ticket's sparse file, its dense weights, or an ONNX model; each is read back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from prunekit.errors import CheckpointError
from prunekit.files import read_tensors, refuse_existing, write_tensors
from prunekit.measure import evaluating
from prunekit.sparse.compact import Compacted, compact
from prunekit.sparse.ticket import Ticket
from prunekit.sparse.ticket_file import read_ticket, save_ticket


@final
@dataclass(frozen=True)
class Written:
    """A file that was written and read back.

    Args:
        bytes: of the file.
        dense_bytes: of the same tensors, stored densely in their own types.
        tensors: how many.
        weight_error: largest absolute difference of any value; 0 where the file is lossless.
        relative_error: largest of such differences over the largest value of its tensor.
        output_error: largest absolute difference of the network's output on `Ticket.example`; None where no error was
            made, or the network cannot be built here.
        output_scale: the output's largest absolute value.
    """

    bytes: int
    dense_bytes: int
    tensors: int
    weight_error: float
    relative_error: float
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
    cast = {
        name: tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
        for name, tensor in ticket.tensors.items()
    }
    write_tensors(path, cast, {"format": "pt", "about": ticket.about.model_dump_json()})
    back = {name: tensor.to(ticket.tensors[name].dtype) for name, tensor in read_tensors(path).items()}
    return _compared(ticket, replace(ticket, tensors=back), path)


def compacted(ticket: Ticket) -> tuple[Ticket, Compacted]:
    """Remove the channels that can never influence the output; see `prunekit.sparse.compact.compact`.

    Raises:
        CheckpointError: the ticket names no network, or the result would differ; see there.
    """
    made = compact(ticket.model(), ticket.example(), ticket.masks)
    attributes = {**ticket.about.attributes, **made.shape.attributes}
    smaller = Ticket.of(made.model, made.masks, ticket.about.model_copy(update={"attributes": attributes}))
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
        weight_error=max(error for error, _ in errors.values()),
        relative_error=max(error / scale for error, scale in errors.values() if scale) if errors else 0.0,
    )
    if not written.weight_error or ticket.about.network is None or ticket.about.input_shape is None:
        return written
    before, after = (_output(each) for each in (ticket, back))
    error, scale = _error(before, after)
    return replace(written, output_error=error, output_scale=scale)


def _error(before: Tensor, after: Tensor) -> tuple[float, float]:
    """Return the largest absolute difference, and the largest absolute value, both over finite values."""
    if torch.equal(before, after) or before.numel() == 0:
        return 0.0, 1.0
    wide = before.double()
    return float((wide - after.double()).abs().nan_to_num(nan=0.0).max()), float(wide.abs().max())


def _output(ticket: Ticket) -> Tensor:
    model = ticket.model()
    with evaluating(model):
        output: Tensor = model(ticket.example())
    return output
