"""YAML -> Recipe -> factories with checked options: every name, key and type is wrong in the first second or never."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Literal, final, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from prunekit.errors import PruneKitError, RecipeError, nearest
from prunekit.registry import KINDS, Registry


@final
class Named(BaseModel):
    """A registered name and the options given to it."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """Every key but ``name``."""
        return dict(self.model_extra or {})


@final
class Recipe(BaseModel):
    """All that decides the result of a run, on a given machine.

    Args:
        task: what is trained and measured, and its options.
        prune: the pruner and its options (scorer, allocation, which parameters).
        strategy: when and how much is cut, and where retraining starts; its option ``of`` (``prunable``, ``all``
            or ``macs``) says what the densities are shares of.
        seed: of initialisation, data order and noise.
        precision: ``fp32`` or ``bf16`` (autocast; the weights stay float32).
        weights: a weights file to start from instead of an initialisation.
        description: one line for people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    description: str = ""
    task: Named
    prune: Named
    strategy: Named
    seed: int = Field(default=0, ge=0, lt=2**63)
    precision: Literal["fp32", "bf16"] = "fp32"
    weights: str | None = None

    def digest(self) -> str:
        """Return 8 hex digits of everything but the description."""
        text = json.dumps(self.model_dump(exclude={"description"}), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def recipe_text(name: str, registry: Registry) -> str:
    """Return the YAML text of a registered recipe, or of a file when ``name`` ends in .yaml or .yml.

    Raises:
        RecipeError: no such recipe or file.
    """
    if name.endswith((".yaml", ".yml")):
        try:
            return Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as cause:
            raise RecipeError(f"recipe file {name} cannot be read: {cause}.") from cause
    package = registry.get("recipe", name)
    return (resources.files(package) / f"{name}.yaml").read_text(encoding="utf-8")


def read_recipe(name: str, overrides: Sequence[str], registry: Registry) -> Recipe:
    """Read a recipe by name or file, and apply ``key.sub=value`` overrides (values are YAML).

    Raises:
        RecipeError: no such recipe, bad YAML, an unknown key (suggests the nearest), or a value of the wrong type.
    """
    try:
        tree = yaml.safe_load(recipe_text(name, registry))
    except yaml.YAMLError as cause:
        raise RecipeError(f"recipe {name} is not valid YAML: {cause}") from cause
    if not isinstance(tree, dict):
        raise RecipeError(f"recipe {name} must be a mapping of keys, not {type(tree).__name__}.")
    if "recipe" in tree:
        raise RecipeError(f"{name} has the key 'recipe', so it is a study and no recipe: prunekit study {name}")
    for override in overrides:
        _override(tree, override)
    return parse_recipe(tree, name)


def apply_overrides(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return the recipe with ``key.sub=value`` overrides applied; raises RecipeError as `read_recipe` does."""
    tree = recipe.model_dump()
    for override in overrides:
        _override(tree, override)
    return parse_recipe(tree, "of this run")


def parse_recipe(tree: Mapping[str, Any], name: str) -> Recipe:
    """Check a mapping against `Recipe`; raises RecipeError naming the key."""
    for key in tree:
        if key not in Recipe.model_fields:
            raise RecipeError(f"recipe {name} has no key {key!r}: {nearest(str(key), Recipe.model_fields)}")
    try:
        return Recipe.model_validate(tree)
    except ValidationError as cause:
        problem = cause.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise RecipeError(f"recipe {name}: {where}: {problem['msg']} (got {problem['input']!r}).") from cause


def _override(tree: dict[str, Any], text: str) -> None:
    path, equals, value = text.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise RecipeError(f"override {text!r} must look like key.sub=value, e.g. task.steps=200.")
    if keys[0] not in Recipe.model_fields:
        raise RecipeError(f"override {text!r}: there is no key {keys[0]!r}: {nearest(keys[0], Recipe.model_fields)}")
    node = tree
    for depth, key in enumerate(keys[:-1], start=1):
        below = node.setdefault(key, {})
        if isinstance(below, str):  # a bare name; its options come beside it
            below = node[key] = {"name": below}
        if not isinstance(below, dict):
            raise RecipeError(f"override {text!r}: {'.'.join(keys[:depth])} is {below!r} and has no keys below it.")
        node = below
    try:
        node[keys[-1]] = yaml.safe_load(value)
    except yaml.YAMLError as cause:
        raise RecipeError(f"override {text!r}: the value is not valid YAML.") from cause


def bind(
    factory: Callable[..., Any], options: Mapping[str, Any], *, where: str, given: Sequence[str] = ()
) -> dict[str, Any]:
    """Check options against a factory's signature and fill in its defaults.

    Args:
        factory: called later with the result as keywords.
        options: as the recipe gives them.
        where: the section, for messages.
        given: parameters the caller will supply itself; not allowed as options.

    Returns:
        Every option that a recipe can hold, each converted to its annotated type.

    Raises:
        RecipeError: unknown option (suggests the nearest), missing one, or a wrong type.
    """
    named, takes_any = _parameters(factory)
    parameters = {key: value for key, value in named.items() if key not in given}
    code = getattr(factory, "func", factory)  # of a functools.partial
    hints = get_type_hints(code.__init__ if inspect.isclass(code) else code)
    for key in options:
        if key not in parameters and not takes_any:
            raise RecipeError(f"{where} has no option {key!r}: {nearest(key, parameters)}")
    bound: dict[str, Any] = {key: value for key, value in options.items() if key not in parameters}
    for key, parameter in parameters.items():
        if key in options:
            bound[key] = _typed(hints.get(key, Any), options[key], f"{where}.{key}")
        elif parameter.default is inspect.Parameter.empty:
            raise RecipeError(f"{where}.{key} is missing: add it to the recipe or give {where}.{key}=VALUE.")
        elif not callable(parameter.default):  # a class or a function is left to the factory: no recipe can hold it
            bound[key] = parameter.default
    return bound


def _parameters(factory: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return a factory's named parameters, and whether it takes others too (``**kwargs``, as timm's do)."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = inspect.signature(factory).parameters
    named = {key: parameter for key, parameter in found.items() if parameter.kind not in variadic}
    return named, any(parameter.kind == inspect.Parameter.VAR_KEYWORD for parameter in found.values())


def _typed(annotation: Any, value: Any, where: str) -> Any:
    if callable(value):
        return value
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as cause:
        raise RecipeError(f"{where}: {cause.errors()[0]['msg']} (got {value!r}).") from cause


@final
class Bound(BaseModel):
    """A factory with all its options, and the tree that reproduces them."""

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)
    factory: Any
    arguments: dict[str, Any]
    tree: dict[str, Any]

    def __call__(self, **more: Any) -> Any:
        """Build the thing; ``more`` are the parameters that were announced as given."""
        return self.factory(**self.arguments, **more)


def resolve(
    kind: str,
    spec: Named,
    registry: Registry,
    *,
    where: str,
    given: Sequence[str] = (),
    usual: Mapping[str, Any] | None = None,
) -> Bound:
    """Look up a name and check its options; an option called like a kind (``scorer``) is itself looked up and built.

    A network is looked up and left to the factory to build, as often as it needs a fresh one. Where the factory's own
    default for it has options (``num_classes: 10``), these are ``usual``: they hold for another network that has them.

    Raises:
        RecipeError, PluginError: as `Registry.get` and `bind` do.
    """
    factory = registry.get(kind, spec.name)
    if not callable(factory):
        raise RecipeError(f"{where}: {spec.name!r} names a {type(factory).__name__}; give a function or a class.")
    try:
        parameters, takes_any = _parameters(factory)
    except ValueError as cause:
        raise RecipeError(f"{where}: {spec.name!r} says nothing of its options; name a function around it.") from cause
    accepted = [name for name in given if name in parameters]
    taken = {key: value for key, value in (usual or {}).items() if takes_any or key in parameters}
    chosen = {**taken, **spec.options}
    defaults = {key: value.default for key, value in parameters.items() if isinstance(value.default, (str, Named))}
    parts: dict[str, Bound] = {}
    for key, value in {**defaults, **chosen}.items():
        if key in KINDS and key in parameters and isinstance(value, (str, dict, Named)):
            name = value.get("name") if isinstance(value, dict) else Named.model_validate(value).name
            if not isinstance(name, str):
                raise RecipeError(
                    f"{where}.{key}.name must be a text, not {name!r}: {nearest('', registry.names(key))}"
                )
            below, default = Named.model_validate(value), defaults.get(key)
            theirs = default.options if isinstance(default, Named) else None
            parts[key] = resolve(key, below, registry, where=f"{where}.{key}", usual=theirs)
    options = {**chosen, **{key: part if key == "network" else part() for key, part in parts.items()}}
    arguments = bind(factory, options, where=where, given=accepted)
    plain = {
        key: parts[key].tree if key in parts else _plain(value, f"{where}.{key}") for key, value in arguments.items()
    }
    build = partial(_built, spec.name, factory) if kind == "network" else factory
    name = getattr(factory, "recipe_name", spec.name)  # of a weights file, what it is of
    return Bound(factory=build, arguments=arguments, tree={"name": name, **plain})


def _built(name: str, factory: Callable[..., Any], /, **options: Any) -> Any:
    """Build a network; what its code says against the options is the user's to mend."""
    try:
        network = factory(**options)
    except PruneKitError:
        raise
    except Exception as cause:  # whatever the network's own code raises
        what = f"{type(cause).__name__}: {cause}"
        raise RecipeError(f"the network {name!r} cannot be built with these options ({what}).") from cause
    if not hasattr(network, "state_dict"):
        raise RecipeError(f"{name!r} makes a {type(network).__name__}, not a torch.nn.Module: it names no network.")
    return network


def _plain(value: Any, where: str) -> Any:
    """Return the value as YAML can hold it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, where) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, where) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise RecipeError(
        f"{where}: a {type(value).__name__} cannot be written in a recipe; use a number, a text or a list."
    )
