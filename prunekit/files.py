"""Files that a crash cannot tear: written beside, synced, renamed; tensors and JSON only, never a pickle."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from prunekit.errors import CheckpointError, Failed, RunError


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it there in one step that survives a power cut.

    Raises:
        Failed: the disk is full or refuses; what stood at ``path`` stands there still.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.chmod(0o666 & ~_umask())  # safetensors would keep its files from everyone else
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError as cause:
        _discard(temporary)
        raise refused(path, cause) from cause
    except SafetensorError as cause:  # its own words for an OSError
        _discard(temporary)
        raise Failed(f"writing {path} failed: {cause}. Free some space; the same command then continues.") from cause


def _umask() -> int:
    """Return what new files are not to permit; the system tells it only to those who set it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _discard(temporary: Path) -> None:
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)


def refused(path: Path, cause: OSError) -> Failed:
    """Return the error for a write that the system refused."""
    why = "the disk is full" if cause.errno in (errno.ENOSPC, errno.EDQUOT) else str(cause)
    return Failed(f"writing {path} failed: {why}. Nothing older was lost; mend it, and the same command continues.")


def sync(path: Path) -> None:
    """Make a file, or a folder's list of names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_existing(path: Path) -> None:
    """Raise CheckpointError if something stands at ``path``: what users name as an output is never overwritten."""
    if os.path.lexists(path):
        raise CheckpointError(f"{path} exists already and is left as it is; choose another name.")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; see `write_atomic`."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; see `write_atomic`."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; raises RunError naming a file that is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise RunError(
            f"{path} is missing or damaged ({cause}); start again with --fresh, or choose another --out."
        ) from cause


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors to a safetensors file, atomically, bit for bit; ``metadata`` are texts for its header."""
    header = dict(metadata or {"format": "pt"})
    write_atomic(path, lambda temporary: save_file(_apart(tensors), temporary, metadata=header))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU; raises CheckpointError when it is missing, truncated or altered."""
    try:
        return load_file(path)
    except (OSError, ValueError, SafetensorError) as cause:
        raise CheckpointError(f"{path} is missing, truncated or altered ({cause}).") from cause


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, and none sharing memory with another, as safetensors wants them."""
    apart: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        apart[name] = plain.clone() if place in taken else plain
        taken.add(place)
    return apart


def write_tree(path: Path, tree: Any) -> None:
    """Write nested dicts, lists, tuples, scalars and tensors to one safetensors file, atomically; no pickle."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_encode(tree, tensors, "$"))
    write_atomic(path, lambda temporary: save_file(_apart(tensors), temporary, metadata={"tree": text}))


def read_tree(path: Path) -> Any:
    """Read what `write_tree` wrote, bit for bit, onto the CPU.

    Raises:
        CheckpointError: the file is missing, truncated, altered, or not ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("tree")
            if text is None:
                raise CheckpointError(f"{path} was not written by prunekit: it has no 'tree' in its header.")
            return _decode(json.loads(text), file.get_tensor)
    except (OSError, ValueError, KeyError, SafetensorError) as cause:
        raise CheckpointError(f"{path} is missing, truncated or altered ({cause}).") from cause


def _encode(value: Any, tensors: dict[str, Tensor], path: str) -> Any:
    if isinstance(value, Tensor):
        # Elementwise kernels differ in the last bit between layouts, so a resumed run must have the same one.
        tensors[path] = value
        return {"$tensor": path, "stride": list(value.stride())}
    if isinstance(value, Mapping):
        return {"$items": [[key, _encode(item, tensors, f"{path}.{key}")] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_encode(item, tensors, f"{path}.{index}") for index, item in enumerate(value)]
        return {"$tuple": items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{path}: a {type(value).__name__} cannot be saved; use tensors, numbers, texts, lists and dicts.")


def _decode(value: Any, tensor: Callable[[str], Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensor) for item in value]
    if not isinstance(value, dict):
        return value
    if "$tuple" in value:
        return tuple(_decode(item, tensor) for item in value["$tuple"])
    if "$items" in value:
        return {key: _decode(item, tensor) for key, item in value["$items"]}
    dense = tensor(value["$tensor"])
    return torch.empty_strided(dense.shape, value["stride"], dtype=dense.dtype).copy_(dense)
