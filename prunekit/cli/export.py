"""``prunekit export``: a run's ticket as a file for someone else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from prunekit.bench.result import parse_shape
from prunekit.errors import CheckpointError, nearest
from prunekit.files import refuse_existing
from prunekit.sparse.export import Written, compacted, export_dense, export_sparse
from prunekit.sparse.source import load
from prunekit.sparse.ticket import Ticket

FORMATS = ("sparse", "dense", "onnx")
TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def export_ticket(
    source: str,
    out: Path,
    *,
    form: str,
    dtype: str | None,
    compact: bool,
    stage: str | None,
    network: str | None,
    shape: str | None,
) -> None:
    """Write the file, read it back, and print its size beside the dense one's and what was lost."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    _check(form, dtype, out, compact=compact)
    refuse_existing(out)
    ticket = load(source, stage=stage, network=network)
    ticket = ticket.taking(parse_shape(shape)) if shape else ticket
    if form == "dense" and ticket.about.compacted:
        raise CheckpointError(
            "channels were removed, and no other program could load smaller tensors into the network: use --format "
            "sparse, or onnx."
        )
    for line in (opening(source, ticket), *remarks(ticket)):
        console.print(line)
    if compact:
        ticket = _compacted(ticket, console)
    if form == "onnx":
        _onnx(ticket, out, console)
        return
    write = export_sparse if form == "sparse" else export_dense
    say_written(write(ticket, out, dtype=TYPES[dtype] if dtype else None), out, dtype, console)


def opening(source: str, ticket: Ticket) -> str:
    """Return the line that says what a verb works on."""
    return f"{source}{f', stage {ticket.about.stage}' if ticket.about.stage else ''}: {ticket.density}"


def remarks(ticket: Ticket) -> Iterator[str]:
    """Yield what must be known of weights that come from no ticket."""
    if not ticket.trained:
        yield "these weights are fresh (seed 0), not trained"
    nonzero = sum(int(torch.count_nonzero(ticket.tensors[name])) for name in ticket.masks)
    if ticket.masks.density == 1 and nonzero < 0.99 * ticket.masks.prunable:
        share = nonzero / ticket.masks.prunable
        yield f"only {nonzero:,} ({share:.2%}) of them are not zero: a plain file has no masks, so all count as kept"


def megabytes(count: int) -> str:
    """Return a number of bytes for people: kB below 100,000, MB from there."""
    return f"{count / 1e3:.1f} kB" if count < 1e5 else f"{count / 1e6:.2f} MB"


def say_written(written: Written, out: Path, dtype: str | None, console: Console) -> None:
    """Print a file's size beside the dense one's, and what reading it back has shown."""
    times = f"{written.dense_bytes / written.bytes:.1f}"
    dense = f"; the same tensors stored densely take {megabytes(written.dense_bytes)}, {times} times as much"
    console.print(f"{out}: {megabytes(written.bytes)}{'' if times == '1.0' else dense}")
    if not written.weight_error[0]:
        console.print(f"read back: all {written.tensors} tensors are identical")
        return
    (error, worst), (relative, worst_relative) = written.weight_error, written.relative_error
    console.print(
        f"read back: {dtype} changes a value by at most {error:.2e} (in {worst}), and by at most {relative:.1e} of the "
        f"largest in its tensor (in {worst_relative})"
    )
    if written.output_error is not None:
        console.print(
            f"and the output on one random input by at most {written.output_error:.2e}, where its largest value is "
            f"{written.output_scale:.3g}"
        )


def _check(form: str, dtype: str | None, out: Path, *, compact: bool) -> None:
    if form not in FORMATS:
        raise CheckpointError(f"there is no format {form!r}: {nearest(form, FORMATS)}")
    if (out.suffix == ".onnx") != (form == "onnx"):
        raise CheckpointError(f"{out} and --format {form} do not go together: ONNX files, and only they, end in .onnx.")
    if compact and form == "dense":
        raise CheckpointError("no other program could load smaller tensors into the network: leave --compact out.")
    if dtype is not None and dtype not in TYPES:
        raise CheckpointError(f"--dtype {dtype} is not possible: {nearest(dtype, TYPES)}")
    if dtype is not None and form == "onnx":
        raise CheckpointError(
            "an ONNX file is written in float32, to be checked against the network; leave --dtype out."
        )


def _compacted(ticket: Ticket, console: Console) -> Ticket:
    if ticket.masks.density == 1 and not any(remarks(replace(ticket, trained=True))):
        console.print("compact: nothing is cut, so nothing can be removed")
        return ticket
    console.print("compact: looking for channels that can never influence the output")
    smaller, made = compacted(ticket)
    if not made.shape.indices:
        console.print("compact: every channel can influence the output, so all of them stay")
        return ticket
    before, after = (sum(tensor.numel() for tensor in each.tensors.values()) for each in (ticket, smaller))
    console.print(
        f"compact: {made.removed:,} channels can never influence the output and are gone, {before:,} values became "
        f"{after:,}; on random inputs the outputs agree to {made.difference:.1e} of their largest value (float64)"
    )
    console.print(f"compact: {smaller.density}")
    return smaller


def _onnx(ticket: Ticket, out: Path, console: Console) -> None:
    from prunekit.sparse.to_onnx import export_onnx

    model = ticket.model()
    metadata = {"density": ticket.density, "about": ticket.about.model_dump_json()}
    made = export_onnx(model, ticket.example(), out, progress=console.print, metadata=metadata)
    console.print(str(made))
