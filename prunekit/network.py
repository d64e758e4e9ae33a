"""Networks by name: what a recipe, a ticket file or a command line calls one, and how it is built."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from prunekit.errors import CheckpointError, PruneKitError, RecipeError
from prunekit.recipe import Named, resolve
from prunekit.registry import FAMILIES, KINDS, Registry

Network = str | Mapping[str, Any] | Named | Callable[[], nn.Module]
"""A name, a name with options, or a factory."""

FETCHES = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "weights"}
"""Options with which networks read or download weights."""

LARGEST = 100_000
"""No harmless network has more of anything that it counts."""

MOST_RATES = 1024
"""Layers whose rates may be real numbers while a network is measured."""


def bind_network(network: Network) -> Callable[[], nn.Module]:
    """Look up a network's name and check its options; call the result for a fresh one.

    Args:
        network: a registered name (``prunekit list``), ``timm:NAME``, ``spandrel:ARCH``, ``spandrel:FILE`` (the network
            that a weights file fits, with these weights), ``python:module:factory``, or ``task:NAME`` (the network that
            a task builds, with the task's options); with options where it is a mapping, or a text such as ``{name:
            promptir, width: 32}``. A factory is returned as it is.

    Returns:
        A factory, to be called under the random seed that the caller wants.

    Raises:
        RecipeError, PluginError: no such name or option, or the code behind it cannot be imported.
        CheckpointError: a weights file that is named cannot be read, or nobody knows what it is of.

    Example:
        >>> bind_network("{name: 'python:torch.nn:Linear', in_features: 3, out_features: 2}")()
        Linear(in_features=3, out_features=2, bias=True)
    """
    if not isinstance(network, (str, Mapping, Named)):
        return network
    spec = _named(network)
    if spec.name.startswith("task:"):
        named = Named.model_validate({**spec.options, "name": spec.name.removeprefix("task:")})
        task = resolve("task", named, Registry.discover(), where="network", given=("seed",))
        return lambda: task(seed=0).model()
    return resolve("network", spec, Registry.discover(), where="network")


def _named(network: str | Mapping[str, Any] | Named) -> Named:
    if isinstance(network, Named):
        return network
    try:
        if isinstance(network, str) and network.lstrip().startswith("{"):
            network = yaml.safe_load(network)
        return Named.model_validate(network)
    except (ValidationError, yaml.YAMLError) as cause:
        raise RecipeError(
            f"{network!r} names no network: give a name, or a name with options as {{name: promptir, width: 32}}."
        ) from cause


def is_harmless(network: Mapping[str, Any]) -> bool:
    """Return whether a description from a file asks for nothing but an installed network with plain options.

    Plain are numbers of a size that networks have, truth values, single words, and lists of these. No code, task or
    file can be named with them.

    Example:
        >>> is_harmless({"name": "promptir", "blocks": [1, 2, 2, 3]}), is_harmless({"name": "task:mine", "data": "x"})
        (True, False)
    """
    name = network.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"(timm:)?[^:]*|spandrel:\w+", name):
        return False
    options = {key: value for key, value in network.items() if key != "name" and not (key in FETCHES and not value)}
    return all(key not in FETCHES and key not in KINDS and _is_plain(value) for key, value in options.items())


def without_sources(network: Mapping[str, Any]) -> dict[str, Any]:
    """Return a description without the options that say where weights came from: for files that hold the weights.

    Example:
        >>> without_sources({"name": "spandrel:NAFNet", "width": 16, "weights": "nafnet.pth"})
        {'name': 'spandrel:NAFNet', 'width': 16}
    """
    installed = str(network.get("name")).startswith(tuple(f"{family}:" for family in FAMILIES))
    return {key: value for key, value in network.items() if not (installed and key in FETCHES)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) <= LARGEST and all(_is_plain(item) and not isinstance(item, list) for item in value)
    if isinstance(value, str):
        return re.fullmatch(r"[\w-]{0,64}", value) is not None
    return value is None or (isinstance(value, (bool, int, float)) and not abs(value) > LARGEST)


def build_bounded(network: Network, *, tensors: int, entries: int) -> nn.Module:
    """Build the network that a file names, but give up before it takes more memory than the file accounts for.

    It is built without memory first, on torch's "meta" device. Leaves torch's random state as it was.

    Args:
        network: as for `bind_network`.
        tensors: most parameters and buffers that may be registered.
        entries: most entries that they may have together.

    Raises:
        CheckpointError: the network would be larger, or cannot be built without memory.
        RecipeError, PluginError: as `bind_network`.

    Example:
        >>> linear = {"name": "python:torch.nn:Linear", "in_features": 3, "out_features": 10**9}
        >>> build_bounded(linear, tensors=2, entries=100)
        Traceback (most recent call last):
        ...
        prunekit.errors.CheckpointError: the network that the file names is far larger than what the file holds: ...
    """
    factory = bind_network(network)
    with torch.random.fork_rng(devices=[]), _bounded(tensors, entries):
        try:
            with torch.device("meta"), _Rates():
                factory()
        except CheckpointError:
            raise
        except PruneKitError as cause:
            raise CheckpointError(
                f"the network that the file names cannot be measured before it is built ({cause}). If you trust the "
                "file, name the network yourself: --network NAME, or network= in Python."
            ) from cause
    with torch.random.fork_rng(devices=[]), _bounded(tensors, entries):
        return factory()


class _Rates(TorchFunctionMode):
    """Lets short ranges be real numbers: networks read the rates of their layers from them, one by one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        steps = kwargs.get("steps", args[2] if len(args) > 2 else None)
        if func is torch.linspace and isinstance(steps, int) and steps <= MOST_RATES:
            kwargs = {"device": "cpu", **kwargs}
        return func(*args, **kwargs)


@contextmanager
def _bounded(tensors: int, entries: int) -> Iterator[None]:
    """Refuse modules that are too large while this thread builds them."""
    builder = threading.get_ident()
    seen = held = 0

    def check(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal seen, held
        if tensor is None or threading.get_ident() != builder:
            return
        seen += 1
        held += tensor.numel()
        if seen > tensors or held > entries:
            raise CheckpointError(
                "the network that the file names is far larger than what the file holds: the file was altered, or "
                "written for another version of that network. If you trust it, name the network yourself: --network "
                "NAME, or network= in Python."
            )

    handles = (
        register_module_parameter_registration_hook(check),
        register_module_buffer_registration_hook(check),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
