"""Networks of other packages by name: ``timm:NAME``, and ``spandrel:ARCH`` or ``spandrel:FILE``."""

from __future__ import annotations

import importlib
import inspect
import typing
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, final

from torch import Tensor, nn

from prunekit.errors import CheckpointError, PluginError, RecipeError, nearest
from prunekit.registry import Registry
from prunekit.weights import WRAPPERS, read_weights, refuse_unfitting

FILES = {".safetensors", ".pt", ".pth", ".ckpt", ".bin"}
"""How the name of a weights file ends."""


def of_timm(name: str) -> Callable[..., nn.Module]:
    """Return the factory of a model that timm has registered; nothing else of timm goes by a name.

    Raises:
        PluginError: timm is not installed.
        RecipeError: it has no such model; suggests the nearest.
    """
    timm = _package("timm", install="timm")
    if not timm.is_model(name):
        raise RecipeError(f"timm has no model {name!r}: {nearest(name, timm.list_models())}")
    factory: Callable[..., nn.Module] = timm.models.model_entrypoint(name)
    return factory


def of_spandrel(name: str) -> Architecture:
    """Return the factory of an architecture that spandrel has registered, or of the one that a weights file fits.

    Args:
        name: an architecture's id, as ``"NAFNet"``; a class's name where an architecture has several, as ``"KBNet_l"``;
            or the path of a weights file (with a folder, or a name that ends as weights files do).

    Raises:
        PluginError: spandrel is not installed.
        RecipeError: it has no such architecture; suggests the nearest.
        CheckpointError: the file cannot be read, or spandrel does not know what it is of.
    """
    known = _architectures()
    if len(PurePath(name).parts) > 1 or PurePath(name).suffix in FILES:
        model = _recognised(Path(name))
        called = next((each for each, build in known.items() if type(model) is build), None)
        told: Any = getattr(model, "hyperparameters", None)
        if called is None or told is None:
            raise CheckpointError(
                f"{name} is of a {type(model).__name__}, and spandrel does not tell with which options it is built: "
                "name the network and its options yourself, and give the file as weights."
            )
        options = {key: value for key, value in told.items() if not callable(value)}
        return Architecture(f"spandrel:{called}", known[called], {**options, "weights": name})
    if name not in known:
        raise RecipeError(f"spandrel has no architecture {name!r}: {nearest(name, known)}")
    return Architecture(f"spandrel:{name}", known[name])


@final
@dataclass(frozen=True)
class Architecture:
    """A factory of one of spandrel's networks: its class's own options, and ``weights``, a file to begin with.

    Args:
        recipe_name: what a recipe calls it.
        func: its class, where the types of the options stand.
        defaults: options that differ from the class's own.
    """

    recipe_name: str
    func: type[nn.Module]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def __signature__(self) -> inspect.Signature:
        """The class's options with the defaults that hold here, and ``weights``."""
        own = inspect.signature(self.func)
        weights = inspect.Parameter("weights", inspect.Parameter.KEYWORD_ONLY, default=None)
        parameters = (*own.parameters.values(), weights)
        return own.replace(
            parameters=[each.replace(default=self.defaults.get(each.name, each.default)) for each in parameters]
        )

    def __call__(self, *, weights: str | None = None, **options: Any) -> nn.Module:
        """Build the network, with the weights of a file if there is one.

        Raises:
            CheckpointError: the file cannot be read, or is of a network with other options.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's advice to the authors
            model = self.func(**options)
        if weights is not None:
            found = _recognised(Path(weights)).state_dict()
            refuse_unfitting(found, model.state_dict(), weights)
            model.load_state_dict(found)
        return model


def _recognised(path: Path) -> nn.Module:
    """Return the network that spandrel builds for a weights file, which is read without running anything in it."""
    state = read_weights(path)
    spandrel = _spandrel()
    while not (fits := [each for each in spandrel.MAIN_REGISTRY.architectures("detection") if each.detect(state)]):
        bare = _without_wrapper(state)
        if bare is None:
            raise CheckpointError(
                f"spandrel knows no architecture that {path} fits (it begins with {', '.join(list(state)[:3])}): name "
                "the network yourself, and give the file as weights."
            )
        state = bare
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            model: nn.Module = fits[0].architecture.load(dict(state)).model
    except Exception as cause:  # whatever spandrel and the network's own code raise
        what = f"{type(cause).__name__}: {cause}".splitlines()[0]
        raise CheckpointError(
            f"{path} looks like the weights of {fits[0].architecture.name}, but spandrel cannot load it ({what}). It "
            "may be incomplete, or of a variant: name the network yourself, and give the file as weights."
        ) from cause
    return model.train()


def _without_wrapper(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return the weights without a prefix that all of them have; None if there is none."""
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in state):
            return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return None


def _architectures() -> dict[str, type[nn.Module]]:
    """Return id -> class of every architecture in spandrel's registry; its classes' names where one has several."""
    found: dict[str, type[nn.Module]] = {}
    for support in _spandrel().MAIN_REGISTRY:
        bases = getattr(type(support.architecture), "__orig_bases__", ())
        generic = next((each for base in bases for each in typing.get_args(base)), None)
        parts = typing.get_args(generic) or (generic,)
        classes = [each for each in parts if inspect.isclass(each) and issubclass(each, nn.Module)]
        found |= {str(support.architecture.id) if len(classes) == 1 else each.__name__: each for each in classes}
    return found


def _spandrel() -> Any:
    """Return spandrel, with the architectures that installed plugins add to it."""
    spandrel, registry = _package("spandrel", install="prunekit[spandrel]"), Registry.discover()
    for name in registry.names("architecture"):
        registry.get("architecture", name)()
    return spandrel


def _package(name: str, *, install: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as cause:
        raise PluginError(
            f"networks called {name}:... need {name}, which cannot be imported ({cause}): pip install '{install}'"
        ) from cause
