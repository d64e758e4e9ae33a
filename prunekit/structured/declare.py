"""Declarations: what a module's code says of its channels and no graph can show."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, final

from torch import nn

from prunekit.errors import SelectionError, nearest
from prunekit.select import canonical
from prunekit.sizes import size_at, sizes_of, tensors_of

Axis = str
"""An axis of a parameter, with its path from the module: ``"qkv.weight:0"``."""

ATTRIBUTE = "prunekit_channels"
"""The class attribute in which a module of one's own may hold its declaration."""


@final
@dataclass(frozen=True)
class Channels:
    """What the code of one class of modules demands of its channels.

    A class holds it as the attribute ``prunekit_channels``; for other people's classes it is given to ``Structured``.

    Args:
        sizes: path of an attribute from the module -> the axis that it counts; ``"proj.weight:1 / num_heads"`` where it
            counts that many at each of so many places.
        together: axes of equal length; index i of one goes with index i of the others.
        in_proportion: axes of which the same share must stay, as the code computes one's length from another's.
        keep: parameters, by their path from the module, whose channels all stay.

    Example:
        >>> Channels(sizes={"head_dim": "proj.weight:1 / heads"}, keep=("norm.weight",)).keep
        ('norm.weight',)
    """

    sizes: Mapping[str, Axis] = field(default_factory=lambda: MappingProxyType({}))
    together: tuple[tuple[Axis, ...], ...] = ()
    in_proportion: tuple[tuple[Axis, ...], ...] = ()
    keep: tuple[str, ...] = ()


Declared = Mapping[type[nn.Module] | str, Channels]
"""A class, or where it is defined as ``"package.module:Class"`` -> its declaration."""

KNOWN: Declared = MappingProxyType(
    {
        "timm.layers.attention:Attention": Channels(
            sizes={"attn_dim": "proj.weight:1", "head_dim": "proj.weight:1 / num_heads"}
        ),
        "spandrel.architectures.SwinIR.__arch.SwinIR:WindowAttention": Channels(
            in_proportion=(("qkv.weight:0", "qkv.weight:1"),)
        ),
        "spandrel.architectures.SwinIR.__arch.SwinIR:RSTB": Channels(
            sizes={"patch_unembed.embed_dim": "conv.weight:0"}
        ),
        "spandrel.architectures.SwinIR.__arch.SwinIR:SwinIR": Channels(
            sizes={"patch_unembed.embed_dim": "conv_first.weight:0"}
        ),
    }
)
"""Declarations for networks of other packages."""


def read(declared: Mapping[Any, Any]) -> Declared:
    """Return declarations of which some may be plain mappings, as a recipe has them.

    Raises:
        SelectionError: one has a key that no declaration has.

    Example:
        >>> read({"my.net:Attention": {"in_proportion": [["qkv.weight:0", "qkv.weight:1"]]}})["my.net:Attention"]
        Channels(sizes=mappingproxy({}), together=(), in_proportion=(('qkv.weight:0', 'qkv.weight:1'),), keep=())
    """
    return {kind: each if isinstance(each, Channels) else _read(kind, each) for kind, each in declared.items()}


def _read(kind: Any, given: Any) -> Channels:
    known = [each.name for each in fields(Channels)]
    if not isinstance(given, Mapping):
        raise SelectionError(f"the declaration for {kind} is {given!r}: it must be a mapping with {', '.join(known)}.")
    for key in given:
        if key not in known:
            raise SelectionError(f"the declaration for {kind} has {key!r}; {nearest(str(key), known)}")
    read: dict[str, Any] = {}
    for key, value in given.items():
        if key == "sizes":
            if not isinstance(value, Mapping):
                raise SelectionError(f"the declaration for {kind}: sizes must be a mapping, not {value!r}.")
            read[key] = value
        elif key == "keep":
            read[key] = _listed(kind, "keep must be a list", value)
        else:
            of = f"{key} must be a list of lists"
            read[key] = tuple(_listed(kind, of, group) for group in _listed(kind, of, value))
    return Channels(**read)


def _listed(kind: Any, what: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise SelectionError(f"the declaration for {kind}: {what}, not {value!r}.")
    return tuple(value)


def declarations(model: nn.Module, declared: Declared) -> Iterator[tuple[str, nn.Module, Channels]]:
    """Yield path, module and declaration of every module that has one: the caller's, its class's, or a known one.

    Raises:
        SelectionError: the caller declares a class that no module is of.
    """
    kinds = {type(module) for module in model.modules()}
    names = {f"{kind.__module__}:{kind.__qualname__}" for kind in kinds}
    for key in declared:
        if key not in kinds | names:
            raise SelectionError(f"declared: no module of the network is a {str(key)!r}; {nearest(str(key), names)}")
    for path, module in model.named_modules():
        kind = type(module)
        name = f"{kind.__module__}:{kind.__qualname__}"
        own = getattr(kind, ATTRIBUTE, None)
        found = declared.get(kind) or declared.get(name) or own or KNOWN.get(name)
        if found is not None:
            yield canonical(path) if path else "", module, found


def axis_of(model: nn.Module, path: str, axis: Axis) -> tuple[str, int]:
    """Return canonical name and number of a declared axis.

    Raises:
        SelectionError: it is spelled in another way, or the module has no such parameter or axis.
    """
    name, colon, number = axis.rpartition(":")
    full, named = f"{path}.{name}".removeprefix("."), tensors_of(model)
    if not colon or not number.strip().isdigit():
        raise SelectionError(f"{axis!r}, declared for {path or 'the network'}, is no axis: write 'qkv.weight:0'.")
    if full not in named:
        raise SelectionError(
            f"{axis!r} is declared for {path or 'the network'}, which has no such parameter; {nearest(full, named)}"
        )
    if int(number) >= named[full].dim():
        raise SelectionError(
            f"{axis!r}, declared for {path or 'the network'}: {full} has shape {tuple(named[full].shape)}."
        )
    return full, int(number)


def counted(model: nn.Module, path: str, module: nn.Module, size: Axis) -> tuple[tuple[str, int], int]:
    """Return the axis that a declared attribute counts, and what its length is to be divided by."""
    axis, _, divisor = (part.strip() for part in size.partition("/"))
    if not divisor:
        return axis_of(model, path, axis), 1
    found = int(divisor) if re.fullmatch(r"\d+", divisor) else size_at(module, divisor)
    if not found:
        raise SelectionError(f"{size!r}, declared for {path or 'the network'}: it has no number {divisor!r}.")
    return axis_of(model, path, axis), found


def refuse_unknown_attribute(model: nn.Module, path: str, attribute: str) -> str:
    """Return the full path of a declared attribute, or raise where no module has such a size."""
    full = f"{path}.{attribute}".removeprefix(".")
    known = {f"{path}.{each}".removeprefix(".") for each in sizes_of(model.get_submodule(path))}
    if full not in known:
        raise SelectionError(
            f"{attribute!r} is declared for {path or 'the network'}, which has no such size; {nearest(full, known)}"
        )
    return full
