"""Where tickets come from and go to: models, files, run directories, names of networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from prunekit.errors import CheckpointError, RecipeError, RunError
from prunekit.files import read_json, read_tensors
from prunekit.imaging import image_call
from prunekit.masks import Masks
from prunekit.network import bind_network, without_sources
from prunekit.recipe import Bound
from prunekit.registry import FAMILIES
from prunekit.shape import Shape
from prunekit.sparse.ticket import About, Ticket
from prunekit.sparse.ticket_file import is_ticket, read_ticket, save_ticket
from prunekit.store import done_stages, read_recipe_file
from prunekit.task import Measure, averages
from prunekit.weights import load_weights

WEIGHTS = {".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".onnx"}
ASSUMED = (1, 3, 128, 128)
"""Shape of an input where neither a ticket nor the network says it."""


def save(
    model: nn.Module,
    cut: Masks | Shape,
    file: str | Path,
    *,
    network: str | Mapping[str, Any] | None = None,
    example: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a pruned model to one small safetensors file: its mask bits and the weights that are left.

    Args:
        model: any module, bare or wrapped, that has the cut (``masks.apply_``, ``shape.apply_``).
        cut: masks, which of its weights are kept; or a shape, which channels of the dense network it has.
        file: must not exist.
        network: name and options with which ``load(file).model()`` builds the module again (see
            ``prunekit.network.bind_network``). Without it the file still holds every tensor.
        example: one input, of which shape and type are noted for tools that run the network.
        dtype: ``torch.float16`` or ``torch.bfloat16`` to store values in half the bytes, with loss.

    Raises:
        MaskError: the masks do not fit, or a weight that they cut is not zero.
        CheckpointError: the file exists, the model does not have the shape, or a value does not fit ``dtype``.
        RecipeError, PluginError: there is no such network, or the model is another one.

    Example:
        >>> import tempfile
        >>> model, path = nn.Linear(64, 64), Path(tempfile.mkdtemp()) / "ticket.safetensors"
        >>> masks = Masks({"weight": torch.eye(64, dtype=torch.bool)})
        >>> masks.apply_(model)
        >>> save(model, masks, path)
        >>> bool(torch.equal(load(path).tensors["weight"], model.weight))
        True
    """
    try:
        about = About(
            network=_tree(network) if network is not None else None,
            input_shape=list(example.shape) if example is not None else None,
            input_dtype=_kind(example) if example is not None else "float32",
            prunekit=version("prunekit"),
        )
    except ValidationError as cause:
        raise CheckpointError(f"the example cannot be noted in a ticket: {cause.errors()[0]['msg']}.") from cause
    ticket = Ticket.of(model, cut, about)
    if network is not None:
        ticket.model()  # a file that does not fit the network it names is of no use to anyone
    save_ticket(ticket, Path(file), dtype=dtype)


def load(source: str | Path, *, stage: str | None = None, network: str | Mapping[str, Any] | None = None) -> Ticket:
    """Read a ticket: from a file of ``save`` or ``prunekit export``, a run directory, or weights and a network's name.

    Args:
        source: a ticket file; a run directory; a plain weights file, with ``network``; or the name of a network, which
            is then dense and freshly initialised (seed 0).
        stage: of a run directory, the name of a finished stage; the last by default.
        network: builds the module, in place of what the source says. Names that run code of one's own
            (``python:module:factory``) are taken from here only, never from a file.

    Returns:
        The ticket: ``.tensors`` and ``.masks`` by canonical name, ``.model()``.

    Raises:
        CheckpointError: the file is missing, truncated, altered, or not a ticket.
        RunError: not a run, or it has no such stage.
        RecipeError, PluginError: there is no such network.

    Example:
        >>> load("net.safetensors")
        Traceback (most recent call last):
        ...
        prunekit.errors.CheckpointError: net.safetensors: there is no such file or run directory.
    """
    path = Path(source)
    if stage is not None and not path.is_dir():
        raise RunError(f"{source} is no run directory, so it has no stage {stage!r}; leave the stage out.")
    if path.is_dir():
        ticket = _of_run(path, stage)
    elif path.is_file():
        if network is not None and not is_ticket(path):
            return _of_network(network, path)
        ticket = read_ticket(path)
    elif str(source).partition(":")[0] not in FAMILIES and (len(path.parts) > 1 or path.suffix in WEIGHTS):
        raise CheckpointError(f"{source}: there is no such file or run directory.")
    else:
        return _of_name(str(source), network)
    return ticket if network is None else _vouched(ticket, network, str(source))


def _vouched(ticket: Ticket, network: str | Mapping[str, Any], source: str) -> Ticket:
    """Return the ticket with the network that the user names; a bare name keeps the options that the ticket has."""
    held = ticket.about.network or {}
    if isinstance(network, str) and held.get("name") == network:
        network = held
    vouched = ticket.vouched(_tree(network))
    try:
        vouched.model()
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    return vouched


def _of_run(run: Path, stage: str | None) -> Ticket:
    """Return a finished stage of a run; everything is in the directory, the task's data are not needed."""
    recipe, folders = read_recipe_file(run / "recipe.yaml"), done_stages(run)
    name = stage or list(folders)[-1]
    if name not in folders:
        raise RunError(f"{run} has no finished stage {name!r}; finished: {', '.join(folders)}.")
    facts, metrics = (read_json(folders[name] / file) for file in ("stage.json", "metrics.json"))
    options = recipe.task.options
    given = facts.get("input") or {}
    about = About(
        network=without_sources(_spec(options["network"]))
        if "network" in options
        else {"name": f"task:{recipe.task.name}", **options},
        parameters=facts["total"],
        input_shape=given.get("shape"),
        input_dtype=given.get("dtype", "float32"),
        measures=list(averages([Measure(**measure) for measure in metrics])),
        recipe=recipe.digest(),
        stage=name,
        prunekit=version("prunekit"),
    )
    cut = _cut(read_tensors(folders[name] / "cut.safetensors"))
    weights = read_tensors(folders[name] / "weights.safetensors")  # sorted by name; the cut knows the model's order
    known = cut if isinstance(cut, Masks) else cut.sizes
    ordered = {each: weights[each] for each in (*known, *sorted(set(weights) - set(known)))}
    if isinstance(cut, Masks):
        return Ticket(ordered, cut, about, trusted=True)
    return Ticket(ordered, Masks({}), about.shrunk(cut), trusted=True)


def _cut(state: Mapping[str, Tensor]) -> Masks | Shape:
    """Return the cut of a stage; a shape says the sizes that the dense network has."""
    return Shape.load(state) if any(key.startswith("size/") for key in state) else Masks.load(state)


def _of_name(name: str, network: str | Mapping[str, Any] | None) -> Ticket:
    try:
        return _of_network(network or name)
    except RecipeError as error:
        raise RecipeError(f"{name} is no file and no run directory, so it was taken for a network: {error}") from error


def _of_network(network: str | Mapping[str, Any], weights: Path | None = None) -> Ticket:
    """Return a network with the weights in a file, or at its initialisation, with nothing cut."""
    bound = bind_network(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = bound()
    if weights is not None:
        load_weights(model, weights)
    tree = bound.tree if isinstance(bound, Bound) else _spec(network)
    about = About(network=without_sources(tree), input_shape=_input_shape(model), prunekit=version("prunekit"))
    trained = weights is not None or bool(tree.get("weights"))
    return dataclasses.replace(Ticket.of(model, Masks.dense(model), about), trained=trained)


def _input_shape(model: nn.Module) -> list[int]:
    known = getattr(model, "default_cfg", {}).get("input_size")  # timm's models say what they were made for
    if known:
        return [1, *known]
    try:
        call = image_call(model)
    except RecipeError:
        return list(ASSUMED)
    return list(call.input(model, torch.zeros(1, call.channels, *ASSUMED[2:])).shape)


def _tree(network: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return a network's name with all its options, checked."""
    bound = bind_network(network)
    return without_sources(bound.tree if isinstance(bound, Bound) else _spec(network))


def _spec(network: Any) -> dict[str, Any]:
    return {"name": network} if isinstance(network, str) else dict(network)


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
