"""Tickets on disk: one safetensors file of mask bits, surviving values and a description; safe to take from strangers.

Under ``bits/NAME`` and ``values/NAME`` stand the packed mask (eight weights to a byte, row-major) and the weights that
are kept, in the same order; under ``dense/NAME`` a tensor of which nothing is cut. The header's only text,
``prunekit``, is a SHA-256 over all of that, a blank, and a description in JSON.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, final

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from prunekit.bits import pack, unpack
from prunekit.errors import CheckpointError, MaskError
from prunekit.files import refuse_existing, write_tensors
from prunekit.masks import Masks
from prunekit.sparse.ticket import DTYPES, About, Ticket

KEY = "prunekit"
STORED = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"}
ADVICE = "copy or download it again"


@final
class Place(BaseModel):
    """One tensor of a ticket: ``prunable`` if the masks have it, ``packed`` if it stands as bits and values."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    name: str
    shape: list[int]
    dtype: str
    prunable: bool
    packed: bool


@final
class Header(BaseModel):
    """The description in a file's header."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, ser_json_inf_nan="constants")
    format: Literal["prunekit ticket 1"]
    about: About
    places: list[Place]


def save_ticket(ticket: Ticket, path: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write a ticket to a new file, without loss unless ``dtype`` asks for one.

    Args:
        ticket: anything; equal tickets give equal bytes.
        path: must not exist.
        dtype: ``torch.float16`` or ``torch.bfloat16``: how floating-point values are stored. They are read back as the
            types they had.

    Raises:
        CheckpointError: the file exists, or a value is too large for ``dtype`` (its tensor is named).
        Failed: the disk is full or refuses.
    """
    places: list[Place] = []
    stored: dict[str, Tensor] = {}
    for name, tensor in ticket.tensors.items():
        mask = ticket.masks.get(name)
        cut = mask is not None and not bool(mask.all())
        kind = str(tensor.dtype).removeprefix("torch.")
        if kind not in DTYPES:
            raise CheckpointError(
                f"{name!r} is of type {kind}, which a ticket cannot hold; it holds {', '.join(DTYPES)}."
            )
        places.append(Place(name=name, shape=list(tensor.shape), dtype=kind, prunable=mask is not None, packed=cut))
        small = cast(tensor, dtype, name)
        if mask is not None and cut:
            stored |= {f"bits/{name}": pack(mask), f"values/{name}": small[mask]}
        else:
            stored[f"dense/{name}"] = small.contiguous()
    text = Header(format="prunekit ticket 1", about=ticket.about, places=places).model_dump_json()
    refuse_existing(path)
    # One text only: safetensors writes several in no order, and equal tickets are to be equal files.
    write_tensors(path, stored, {KEY: f"{_digest(text, stored)} {text}"})


def read_ticket(path: Path) -> Ticket:
    """Read a ticket; nothing in the file is executed, and sizes are checked before memory is taken.

    Raises:
        CheckpointError: missing, truncated, altered, or no ticket.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            checksum, _, text = (file.metadata() or {}).get(KEY, "").partition(" ")
            if not checksum:
                raise CheckpointError(
                    f"{path} is a safetensors file and no ticket: its header describes none. For plain weights name "
                    "their network: --network NAME, or prunekit.load(file, network=NAME)."
                )
            header = Header.model_validate_json(text)
            _check_sizes(header, file)
            stored = {key: file.get_tensor(key) for key in sorted(file.keys())}
        if _digest(text, stored) != checksum:
            raise CheckpointError(f"{path} was altered since it was written (its checksum differs): {ADVICE}.")
        return _unpacked(header, stored)
    except (OSError, ValidationError, SafetensorError, MaskError, _Altered) as cause:
        _say_what_else_it_is(path)
        first = str(cause).splitlines()[0]
        raise CheckpointError(f"{path} is truncated, altered, or no ticket ({first}): {ADVICE}.") from cause


def is_ticket(path: Path) -> bool:
    """Return whether a file says that it is a ticket; it may still be damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return KEY in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def _say_what_else_it_is(path: Path) -> None:
    """Raise CheckpointError for a whole file of another kind."""
    with path.open("rb") as file:
        start = file.read(4)
    if path.suffix == ".onnx":
        raise CheckpointError(f"{path} is an ONNX file; these are only written. Give the ticket that it was made from.")
    if start == b"PK\x03\x04" or path.suffix in (".pt", ".pth", ".ckpt", ".bin"):
        raise CheckpointError(
            f"{path} is no ticket but a file of PyTorch's: name the network of these weights with --network NAME, or "
            "prunekit.load(file, network=NAME). Of a published restoration network, spandrel:FILE may find the name."
        )


class _Altered(Exception):  # noqa: N818  (what the file is, for the message above)
    pass


def _check_sizes(header: Header, file: Any) -> None:
    """Raise unless the file holds exactly the tensors that the header describes, in shapes that fit it."""
    wanted: dict[str, list[int] | None] = {}
    for place in header.places:
        impossible = len(place.shape) > 32 or any(not 0 <= side < 2**48 for side in place.shape)
        if place.dtype not in DTYPES or impossible or (place.packed and not place.prunable):
            raise _Altered(f"{place.name!r} is described wrongly")
        if place.packed:
            wanted |= {f"bits/{place.name}": [(math.prod(place.shape) + 7) // 8], f"values/{place.name}": None}
        else:
            wanted[f"dense/{place.name}"] = place.shape
    if set(file.keys()) != wanted.keys() or len({place.name for place in header.places}) != len(header.places):
        raise _Altered("its tensors are not those that its header describes")
    for key, shape in wanted.items():
        part = file.get_slice(key)
        fits = len(part.get_shape()) == 1 if shape is None else part.get_shape() == shape
        if part.get_dtype() not in STORED or not fits:
            raise _Altered(f"{key!r} has type {part.get_dtype()} and shape {part.get_shape()}")


def _unpacked(header: Header, stored: Mapping[str, Tensor]) -> Ticket:
    tensors: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    for place in header.places:
        if place.packed:
            mask, values = _bits(place, stored)
            masks[place.name] = mask
            tensors[place.name] = torch.zeros(place.shape, dtype=DTYPES[place.dtype])
            tensors[place.name][mask] = values.to(DTYPES[place.dtype])
            continue
        # A copy: what safetensors hands out may be the file itself, which can change.
        tensors[place.name] = stored[f"dense/{place.name}"].to(DTYPES[place.dtype], copy=True)
        if place.prunable:
            masks[place.name] = torch.ones(place.shape, dtype=torch.bool)
    return Ticket(tensors, Masks(masks), header.about)


def _bits(place: Place, stored: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return a packed tensor's mask, and the values that it keeps."""
    mask = unpack(stored[f"bits/{place.name}"], place.shape, name=place.name)
    values = stored[f"values/{place.name}"]
    if (kept := int(torch.count_nonzero(mask))) != values.numel():
        raise _Altered(f"the mask of {place.name!r} keeps {kept} weights, and {values.numel()} are there")
    return mask, values


def cast(tensor: Tensor, dtype: torch.dtype | None, name: str) -> Tensor:
    """Return a floating-point tensor in half the bytes; raises CheckpointError naming one that does not fit."""
    if dtype not in (None, torch.float16, torch.bfloat16):
        raise CheckpointError(f"values can be stored as torch.float16 or torch.bfloat16, not as {dtype}.")
    if dtype is None or not tensor.is_floating_point():
        return tensor
    small = tensor.to(dtype)
    if bool((torch.isinf(small) & ~torch.isinf(tensor)).any()):
        raise CheckpointError(
            f"{name!r} holds {float(tensor.abs().max()):.4g}, more than {dtype} can; use bfloat16, or no --dtype."
        )
    return small


def _digest(text: str, stored: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for key, tensor in sorted(stored.items()):
        digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
