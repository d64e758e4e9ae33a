"""Load published weights without ever running what is in the file."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from prunekit.errors import CheckpointError

WRAPPERS = ("net.", "module.", "_orig_mod.")
"""What Lightning modules, data parallelism and torch.compile put before a name."""

HOLDERS = ("params_ema", "params", "state_dict", "model_state_dict", "model")
"""Keys under which files hold their weights, the averaged ones first."""


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Copy the weights in a file into ``model``: every entry, or none.

    Args:
        model: the network the file was made with, on any device and in any floating-point type.
        path: ``.safetensors``, or anything ``torch.save`` wrote: a bare state dict, or a Lightning checkpoint, whose
            entries stand under ``state_dict`` and begin with ``net.``, or one of the other holders in ``HOLDERS``.

    Raises:
        CheckpointError: the file is missing, truncated, not a checkpoint, asks to run code, or is of another network.
            The model is unchanged.

    Example:
        >>> import tempfile
        >>> net, path = nn.Linear(2, 1), Path(tempfile.mkdtemp()) / "lightning.ckpt"
        >>> torch.save({"state_dict": {"net.weight": torch.ones(1, 2), "net.bias": torch.zeros(1)}}, path)
        >>> load_weights(net, path)
        >>> net.weight.tolist()
        [[1.0, 1.0]]
    """
    path = Path(path)
    wanted = model.state_dict()
    found = {_bare(name, wanted): tensor for name, tensor in read_weights(path).items()}
    refuse_unfitting(found, wanted, str(path))
    model.load_state_dict(found)


def refuse_unfitting(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    """Raise CheckpointError unless both have the same names with the same shapes; ``what`` is said not to fit."""
    problems = [
        _listed("missing", [name for name in wanted if name not in found]),
        _listed("unexpected", [name for name in found if name not in wanted]),
        _listed(
            "of another shape", [_shapes(n, found[n], wanted[n]) for n in wanted if _differ(found.get(n), wanted[n])]
        ),
    ]
    if any(problems):
        raise CheckpointError(
            f"{what} does not fit this network: {'; '.join(filter(None, problems))}. {_cause(found, wanted)}"
        )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the named tensors in a file, as it names them.

    Raises:
        CheckpointError: the file is missing, truncated, not a checkpoint, or asks to run code.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path}: there is no such file. Give the path of a .safetensors, .pt, .pth or .ckpt file."
        )
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    held = content if isinstance(content, Mapping) else {}
    state = next((held[key] for key in HOLDERS if isinstance(held.get(key), Mapping)), held)
    if not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        found = ", ".join(map(str, list(held)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(
            f"{path} holds no weights that can be found: a state dict was expected, or one under a key such as "
            f"'state_dict' or 'params', and it holds {found or 'nothing'}."
        )
    return {str(name): tensor for name, tensor in state.items()}


def _read_safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file ({error}): download or copy it again."
        ) from error


def _read_torch(path: Path) -> object:
    is_archive = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        start = file.read(4)
    if not start or (start == b"PK\x03\x04" and not is_archive):
        raise CheckpointError(f"{path} is truncated (its end is missing): download or copy it again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on pickle versions; what it cannot read, it refuses
            # Mapped, so that optimiser states beside the weights are never read.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, str(error), start)) from error
    except (RuntimeError, EOFError, LookupError, ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(_damaged(path)) from error


def _refusal(path: Path, reason: str, start: bytes) -> str:
    wanted = re.search(r"GLOBAL (\S+)", reason)
    if wanted is None and not start.startswith(b"\x80"):  # every pickle that torch.save writes starts with this byte
        return _damaged(path)
    held = f"a Python object, {wanted[1]}" if wanted else "Python objects"
    return (
        f"{path} is refused: beside tensors it holds {held}, and building one can run any code. "
        "Nothing was run. Ask for the file as .safetensors or as a bare state dict; only if you trust its author, "
        "convert it yourself where the program that wrote it is installed: "
        "torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pt')."
    )


def _damaged(path: Path) -> str:
    return f"{path} is truncated, damaged, or not a file that torch.save wrote: download or copy it again."


def _bare(name: str, wanted: Mapping[str, Tensor]) -> str:
    """Return ``name`` without wrappers' prefixes, unless the network itself uses them."""
    while name not in wanted:
        prefix = next((p for p in WRAPPERS if name.startswith(p)), None)
        if prefix is None:
            break
        name = name.removeprefix(prefix)
    return name


def _differ(found: Tensor | None, wanted: Tensor) -> bool:
    return found is not None and found.shape != wanted.shape


def _shapes(name: str, found: Tensor, wanted: Tensor) -> str:
    return f"{name} (file {list(found.shape)}, network {list(wanted.shape)})"


def _listed(what: str, names: Sequence[str]) -> str:
    return f"{len(names)} {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" if names else ""


def _cause(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    shared = len(found.keys() & wanted.keys())
    if 2 * shared < len(wanted):
        return "It is a checkpoint of another network: build the one it was made with."
    if shared == len(wanted) == len(found):
        return "It is a checkpoint of another network: the same kind at another size. Build the size it was made with."
    return "It is a checkpoint of another network, of another depth or variant, or a part of one."
