"""Names of parameters: which ones may be pruned, and how wrapped models and bare ones agree on what to call them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from prunekit.errors import SelectionError, nearest

_WRAPPERS = {"module", "_orig_mod"}  # DistributedDataParallel and torch.compile put these into names
_DEFAULT_TYPES = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)


def canonical(name: str) -> str:
    """Return ``name`` as the bare model calls it, without the path segments that wrappers add.

    Example:
        >>> canonical("module._orig_mod.body.0.weight")
        'body.0.weight'
    """
    *path, leaf = name.split(".")
    return ".".join([segment for segment in path if segment not in _WRAPPERS] + [leaf])


def parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return canonical name -> parameter in model order; a tied parameter appears once, under its first name.

    Raises:
        SelectionError: two parameters get one name once the wrappers' prefixes are gone, or one is sharded.

    Example:
        >>> list(parameters(nn.Linear(3, 2)))
        ['weight', 'bias']
    """
    named = [(canonical(name), parameter) for name, parameter in model.named_parameters()]
    found = dict(named)
    if len(found) < len(named):
        names = [name for name, _ in named]
        twice = next(name for name in names if names.count(name) > 1)
        raise SelectionError(
            f"two parameters are both called {twice!r} once 'module.' and '_orig_mod.' are stripped from their names: "
            "rename the attribute 'module' of the model."
        )
    sharded = next((name for name, parameter in named if hasattr(parameter, "placements")), None)
    if sharded is not None:
        raise SelectionError(
            f"{sharded!r} is sharded over processes (FSDP or tensor parallel), and no process sees all its weights: "
            "train with DistributedDataParallel, or on one device."
        )
    return found


def matching(pattern: str, names: Iterable[str], what: str) -> list[str]:
    """Return the names that the glob ``pattern`` matches, case-sensitively; ``what`` says where the pattern stood.

    ``*``, ``?`` and ``[...]`` are those of a shell, and ``{a,b}`` is either of both; one of them is enough.

    Raises:
        SelectionError: it matches none of them.

    Example:
        >>> matching("*.{weight,scale}", ["a.weight", "a.bias"], "include")
        ['a.weight']
    """
    known, globs = list(names), _spelled_out(pattern)
    found = [name for name in known if any(fnmatchcase(name, glob) for glob in globs)]
    if not found:
        raise SelectionError(f"{what}: {pattern!r} matches no name; {nearest(pattern, known)}")
    return found


def _spelled_out(pattern: str) -> list[str]:
    """Return a glob for each choice that the braces in a pattern leave."""
    head, opened, rest = pattern.partition("{")
    inside, closed, tail = rest.partition("}")
    if not (opened and closed):
        return [pattern]
    return [glob for each in inside.split(",") for glob in _spelled_out(head + each + tail)]


def prunable(
    model: nn.Module, *, include: Sequence[str] = (), exclude: Sequence[str] = (), types: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the canonical names of the parameters that may be pruned, in model order.

    With nothing given: ``weight`` of every convolution, transposed convolution and linear layer.

    Args:
        model: bare or wrapped (``module.``, ``_orig_mod.``).
        include: globs (see `matching`) over full names; any floating-point parameter that matches one, norm scales and
            prompts too.
        exclude: globs over full names to leave out of what the other two choose.
        types: class names, base classes count, e.g. ``"Conv2d"``: ``weight`` of such modules, or, with ``include``,
            what it matches among their parameters.

    Raises:
        SelectionError: an entry matches nothing (the nearest names are given), or nothing is left.

    Example:
        >>> prunable(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
        ('0.weight',)
        >>> prunable(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), include=["*.weight"])
        ('0.weight', '1.weight')
    """
    named = parameters(model)
    chosen = set(_candidates(model, named, types, only_weight=not include))
    if include:
        chosen = {name for pattern in include for name in matching(pattern, sorted(chosen), "include")}
    for pattern in exclude:
        chosen -= set(matching(pattern, named, "exclude"))
    if not chosen:
        raise SelectionError("no parameter is left to prune: widen include or types, or exclude less.")
    return tuple(name for name in named if name in chosen)


def _candidates(
    model: nn.Module, named: dict[str, nn.Parameter], types: Sequence[str], *, only_weight: bool
) -> Iterable[str]:
    """Yield the names of floating-point parameters owned by a module of the given types (default: see above)."""
    classes = {module: {base.__name__ for base in type(module).__mro__} for module in model.modules()}
    for wanted in types:
        if not any(wanted in bases for bases in classes.values()):
            known = {type(module).__name__ for module in classes}
            raise SelectionError(f"types: no module is a {wanted!r}; {nearest(wanted, known)}")
    names = {id(parameter): name for name, parameter in named.items()}
    for module, bases in classes.items():
        fits = not bases.isdisjoint(types) if types else not only_weight or isinstance(module, _DEFAULT_TYPES)
        for local, parameter in module.named_parameters(recurse=False):
            if fits and parameter.is_floating_point() and (local == "weight" or not only_weight):
                yield names[id(parameter)]
