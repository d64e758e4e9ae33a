"""Trials: running a network that was cut, to see that its own code takes fewer channels."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from prunekit.errors import PruneKitError, SelectionError
from prunekit.measure import count_macs, evaluating
from prunekit.shape import Shape


class MisfitError(SelectionError):
    """A module's own code does not take the channels that are left; carries the module's class."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


def shrunk(model: nn.Module, shape: Shape, since: Shape | None = None) -> nn.Module:
    """Return a copy of the model in this shape; ``since`` is the one that it has."""
    smaller = copy.deepcopy(model)
    shape.apply_(smaller, since)
    return smaller


def fresh(example: Any) -> Any:
    """Return a copy of an input: some networks write into theirs."""
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, example)


def hollow(model: nn.Module, example: Any) -> tuple[nn.Module, Any]:
    """Return copies whose tensors have shapes and no entries, so that a pass costs hardly anything.

    A network whose code looks at entries, or holds tensors that do not move with it, is returned as it is.
    """
    empty = copy.deepcopy(model).to("meta")
    shapes = tree_map(lambda leaf: leaf.to("meta") if isinstance(leaf, Tensor) else leaf, example)
    try:
        alike = count_macs(empty, shapes) == count_macs(model, fresh(example))
    except Exception:  # whatever the network's own code raises
        alike = False
    return (empty, shapes) if alike else (model, example)


def run(model: nn.Module, example: Any) -> Any:
    """Return the network's output in eval mode.

    Raises:
        MisfitError: its code does not take the channels that are left; names the module.
    """
    with evaluating(model):
        return _run(model, example)


def refuse_example(model: nn.Module, example: Any) -> None:
    """Raise unless the network, before anything is cut of it, takes the example.

    Raises:
        SelectionError: it does not; says why, in its own words.
    """
    try:
        with evaluating(model):
            model(fresh(example))
    except Exception as cause:  # whatever the network's own code raises
        shapes = [tuple(leaf.shape) for leaf in tree_leaves(example) if isinstance(leaf, Tensor)]
        first = f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
        raise SelectionError(
            f"the network does not take the example that it is to be cut with, of shape {shapes} ({first}): pass "
            "another one, prunekit.Calibration(..., example=x)."
        ) from cause


def _run(model: nn.Module, example: Any) -> Any:
    inside: list[str] = []
    names = {module: path for path, module in model.named_modules()}

    def enter(module: nn.Module, args: Any) -> None:
        inside.append(names.get(module, ""))

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        inside.pop()

    handles = [module.register_forward_pre_hook(enter) for module in names]
    handles += [module.register_forward_hook(leave) for module in names]
    try:
        return model(fresh(example))
    except PruneKitError:  # out of time or memory
        raise
    except Exception as cause:  # whatever the network's own code raises
        raise _misfit(model, inside, cause) from cause
    finally:
        for handle in handles:
            handle.remove()


def _misfit(model: nn.Module, inside: list[str], cause: Exception) -> MisfitError:
    """Return an error that names the innermost module which is not one of torch's own layers."""
    owners = [path for path in inside if not _is_layer(model.get_submodule(path))]
    path = owners[-1] if owners else ""
    kind = type(model.get_submodule(path))
    first = f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
    return MisfitError(
        f"the code of {path or 'the network'} ({kind.__name__}) does not take fewer channels ({first}): it has sizes "
        "that no parameter shows. Say which with prunekit.Channels, or let its channels stay: "
        f"exclude: ['{path + '.' if path else ''}*'].",
        f"{kind.__module__}.{kind.__qualname__}",
    )


def _is_layer(module: nn.Module) -> bool:
    """Return whether a module has no sizes in its own code: a layer of torch's, or a container."""
    kind = type(module).__module__
    return kind.startswith("torch.nn.modules.container") or (
        kind.startswith("torch.nn") and not any(True for _ in module.children())
    )


def refuse_misfit(model: nn.Module, smaller: nn.Module, example: Any) -> None:
    """Raise unless the smaller network takes the example and returns what the network returns, of the same shapes.

    It is run in training mode, too, where the network itself takes one example there: code may differ between the two.

    Raises:
        SelectionError: it does not, or what it returns is not finite and what the network returns is.
    """
    _refuse_unlike(run(model, example), run(smaller, example))
    modes = [(module, module.training) for each in (model, smaller) for module in each.modules()]
    try:
        model.train()
        smaller.train()
        with torch.no_grad():
            try:
                model(fresh(example))
            except Exception:  # e.g. a batch norm that sees one value per channel
                return
            _run(smaller, example)
    finally:
        for module, mode in modes:
            module.training = mode


def _refuse_unlike(before: Any, after: Any) -> None:
    old, new = ([leaf for leaf in tree_leaves(each) if isinstance(leaf, Tensor)] for each in (before, after))
    shapes = [[tuple(leaf.shape) for leaf in leaves] for leaves in (old, new)]
    if shapes[0] != shapes[1]:
        raise SelectionError(
            f"the smaller network returns {shapes[1]} where the network returns {shapes[0]}: something in its output "
            "is counted in channels; let those stay with exclude."
        )
    for one, other in zip(old, new, strict=True):
        if torch.isfinite(one).all() and not torch.isfinite(other).all():
            raise SelectionError("the smaller network's output is not finite, and the network's is: keep more of it.")
