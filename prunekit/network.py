"""Networks by name: what a recipe, a ticket file or a command line calls one, and how it is built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from prunekit.errors import CheckpointError, PruneKitError
from prunekit.recipe import Named, resolve
from prunekit.registry import Registry

Network = str | Mapping[str, Any] | Named | Callable[[], nn.Module]
"""A name, a name with options, or a factory."""

FETCHES = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path")
"""Options with which timm reads or downloads weights."""


def bind_network(network: Network) -> Callable[[], nn.Module]:
    """Look up a network's name and check its options; call the result for a fresh one.

    Args:
        network: a registered name (``prunekit list``), ``timm:NAME``, ``python:module:factory``, or ``task:NAME`` (the
            network that a task builds, with the task's options); with options where it is a mapping. A factory is
            returned as it is.

    Returns:
        A factory, to be called under the random seed that the caller wants.

    Raises:
        RecipeError, PluginError: no such name or option, or the code behind it cannot be imported.

    Example:
        >>> bind_network({"name": "python:torch.nn:Linear", "in_features": 3, "out_features": 2})()
        Linear(in_features=3, out_features=2, bias=True)
    """
    if not isinstance(network, (str, Mapping, Named)):
        return network
    spec = network if isinstance(network, Named) else Named.model_validate(network)
    if spec.name.startswith("task:"):
        named = Named.model_validate({**spec.options, "name": spec.name.removeprefix("task:")})
        task = resolve("task", named, Registry.discover(), where="network", given=("seed",))
        return lambda: task(seed=0).model()
    return resolve("network", spec, Registry.discover(), where="network")


def is_foreign(value: Any) -> bool:
    """Return whether a network's name and options, read from a file, ask for more than building an installed network.

    ``python:`` names run any code, and some of timm's options open files or addresses.

    Example:
        >>> is_foreign({"name": "task:python:os:system"}), is_foreign({"name": "promptir", "width": 24})
        (True, False)
    """
    if isinstance(value, Mapping):
        return any(is_foreign(item) or (key in FETCHES and bool(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return any(is_foreign(item) for item in value)
    return isinstance(value, str) and "python:" in value


def build_bounded(network: Network, *, parameters: int, entries: int) -> nn.Module:
    """Build the network that a file names, but give up before it takes more memory than the file accounts for.

    It is built without memory first, on torch's "meta" device, where its code allows that. Leaves torch's random state
    as it was.

    Args:
        network: as for `bind_network`.
        parameters: most parameters that may be registered.
        entries: most entries that they may have together.

    Raises:
        CheckpointError: the network would be larger.
        RecipeError, PluginError: as `bind_network`.

    Example:
        >>> linear = {"name": "python:torch.nn:Linear", "in_features": 3, "out_features": 10**9}
        >>> build_bounded(linear, parameters=2, entries=100)
        Traceback (most recent call last):
        ...
        prunekit.errors.CheckpointError: the network that the file names is far larger than what the file holds: ...
    """
    factory = bind_network(network)
    with torch.random.fork_rng(devices=[]):
        try:
            with _bounded(parameters, entries), torch.device("meta"):
                factory()
        except CheckpointError:
            raise
        except (PruneKitError, NotImplementedError, RuntimeError):
            pass  # a network that computes with values while it is built, or one that cannot be built at all
        with _bounded(parameters, entries):
            return factory()


@contextmanager
def _bounded(parameters: int, entries: int) -> Iterator[None]:
    seen = held = 0

    def check(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal seen, held
        seen += 1
        held += 0 if parameter is None else parameter.numel()
        if seen > parameters or held > entries:
            raise CheckpointError(
                "the network that the file names is far larger than what the file holds: the file was altered, or "
                "written for another version of that network."
            )

    handle = register_module_parameter_registration_hook(check)
    try:
        yield
    finally:
        handle.remove()
