"""The schema of recipes, from the model that reads them, and every recipe that is installed, as it is."""

from docsite.choices import section
from prunekit.recipe import Recipe, recipe_text
from prunekit.registry import Registry

HEAD = """# Recipe schema

Every key of a recipe with its type and default, made from the model that reads it, and the recipes that come with
PruneKit and its plugin. How to write one, and how known methods are spelled: [Write a recipe](../how-to/recipes.md).

| key | type | default | meaning |
| --- | --- | --- | --- |
"""
NAMED = """
A **name with options** is a text (`magnitude`) or a mapping (`{name: random, seed: 1}`). Its keys are the parameters of
what is named, and their types are checked before anything runs; all of them are [listed here](choices.md). An option
that is called like a kind (`scorer`, `allocation`, `schedule`, `network`) is itself a name with options. Any other key
is an error that suggests the nearest. `prunekit show NAME` prints a recipe, `prunekit cp NAME mine.yaml` copies it.
"""


def pages() -> dict[str, str]:
    """Return the page."""
    registry = Registry.discover()
    schema = HEAD + "\n".join(map(_row, Recipe.model_fields))
    recipes = [
        f"## `{name}`\n\n```yaml\n{recipe_text(name, registry).rstrip()}\n```\n" for name in registry.names("recipe")
    ]
    return {"reference/recipe.md": "\n".join([schema, NAMED, *recipes])}


def meanings() -> dict[str, str]:
    """Return what the model's docstring says of each key."""
    found: dict[str, str] = {}
    for part in _arguments():
        key, _, text = part.partition(": ")
        found[key] = text
    return found


def _arguments() -> list[str]:
    """Return the docstring's arguments, each in one line."""
    text = section(Recipe, "Args")
    starts = sorted(text.index(f"{key}: ") for key in Recipe.model_fields if f"{key}: " in text)
    return [text[start:end].strip() for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def _row(key: str) -> str:
    schema = Recipe.model_json_schema()["properties"][key]
    default = "required" if Recipe.model_fields[key].is_required() else f"`{_yaml(schema.get('default'))}`"
    return f"| `{key}` | {_type(schema)} | {default} | {meanings()[key].replace('``', '`')} |"


def _type(schema: dict[str, object]) -> str:
    if "$ref" in schema:
        return "name with options"
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])  # type: ignore[attr-defined]
    if "anyOf" in schema:
        return " or ".join(str(each["type"]) for each in schema["anyOf"])  # type: ignore[attr-defined]
    return str(schema["type"])


def _yaml(value: object) -> str:
    return "null" if value is None else repr(value) if value == "" else str(value)
