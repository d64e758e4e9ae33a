"""The documentation is true: code runs, commands exist, outputs are real, and every public name is described."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import re
import subprocess
import sys
import tomllib
import typing
from pathlib import Path
from typing import Any

import numpy as np
import own_loops
import pages
import pytest
import torch
import yaml
from holding import toy
from torch import nn

import docsite
import prunekit as pk
from docsite.api import homes
from docsite.choices import KINDS, OPTIONS_ONLY, section
from docsite.cli import program, verbs
from docsite.recipe import meanings
from prunekit import registry
from prunekit.recipe import Named, Recipe, read_recipe, recipe_text
from prunekit.recipe import resolve as resolve_options
from prunekit.registry import Registry
from prunekit.schedule import Schedule
from prunekit.score import PerTensor
from prunekit.study.spec import read_study

GENERATED = docsite.pages()
REGISTRY = Registry.discover()
VERBS = verbs(program())
WRITTEN = [*pages.pages(), *pages.BESIDE]
PYTHON = [name for name in WRITTEN if any(block.language == "python" for block in pages.blocks(name))]
SLOW = [name for name in pages.pages() if any(block.mark == "slow" for block in pages.blocks(name))]


def given(page: str) -> dict[str, Any]:
    """Return the names that pages take for granted: a small network, a ticket of it, a training, an image."""
    model = nn.Conv2d(3, 3, 3, padding=1) if page == "how-to/pretrained.md" else toy()
    x = torch.rand(2, 3, 6, 6)

    def train(model: nn.Module, first: int = 0, last: int = 2) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for _, (images, labels) in zip(range(first, last), own_loops.batches(first), strict=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()

    names = {"torch": torch, "nn": nn, "pk": pk, "model": model, "masks": pk.Masks.dense(model), "x": x, "example": x}
    names |= {"train": train, "STEPS": 6, "REWIND_STEP": 2, "loss_of": nn.functional.cross_entropy}
    names |= {"batches": [own_loops.labelled(step) for step in range(2)]}
    names |= {"PerTensor": PerTensor, "Density": pk.Density, "Schedule": Schedule}
    return names | {"pixels": np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)}


@pytest.mark.parametrize("page", PYTHON)
def test_python_runs(page: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if elsewhere := pages.run_elsewhere(page):
        assert page.rpartition("/")[2].removesuffix(".md").replace("-", "_") in elsewhere
        assert (pages.ROOT / elsewhere).exists()
        return
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    folder.rename(tmp_path / "BSD400")  # stands for the calibration images of one page
    names, printed = given(page), io.StringIO()
    for block in pages.blocks(page):
        if block.mark == "output":
            assert printed.getvalue() == block.text
        elif block.language == "python" and not block.mark.startswith("not run: "):
            if block.mark.startswith("file: "):
                save(block, tmp_path)
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(block.text, page, "exec"), names)
    for module in [name for name in sys.modules if name in ("my_net", "prunekit_mine")]:
        del sys.modules[module]


def save(block: pages.Block, folder: Path) -> None:
    path = folder / block.mark.removeprefix("file: ")
    path.parent.mkdir(exist_ok=True)
    path.write_text(block.text)


@pytest.mark.parametrize("page", WRITTEN)
def test_every_mark_is_known_and_says_why(page: str) -> None:
    for block in pages.blocks(page):
        known = block.mark in ("", "slow", "output") or block.mark.startswith(("file: ", "not run: "))
        assert known and block.mark.strip() != "not run:", block


def test_files_that_a_reader_copies_can_be_read(tmp_path: Path) -> None:
    blocks = [block for page in WRITTEN for block in pages.blocks(page)]
    whole = yaml.safe_load(recipe_text("digits", REGISTRY))
    for number, block in enumerate(found := [block for block in blocks if block.language == "yaml"]):
        tree = yaml.safe_load(block.text)
        if "recipe" in tree:
            (tmp_path / f"{number}.yaml").write_text(block.text)
            read_study(str(tmp_path / f"{number}.yaml"), (), {})
        else:
            read = Recipe.model_validate({**whole, **tree})
            resolve_options("pruner", read.prune, REGISTRY, where="prune")
            own = {key: value for key, value in read.strategy.options.items() if key != "of"}
            named = Named(name=read.strategy.name, **own)
            resolve_options("strategy", named, REGISTRY, where="strategy", given=("steps",))
    assert {"how-to/structured.md", "studies.md"} <= {block.page for block in found}
    (project,) = [tomllib.loads(block.text) for block in blocks if block.language == "toml"]
    assert project["project"]["entry-points"] == {"prunekit.scorer": {"relative": "prunekit_mine:relative"}}


def test_the_tutorial_on_plugins_names_every_kind() -> None:
    assert {kind for kind in registry.KINDS if f"prunekit.{kind}" not in pages.text("tutorials/plugin.md")} == set()


@pytest.mark.parametrize("page", WRITTEN)
def test_commands_exist_with_their_options(page: str) -> None:
    for words, whole in pages.commands(page):
        match words:
            case ["prunekit", *rest]:
                check(rest, whole)
            case ["torchrun" | "accelerate", *rest]:
                check(rest[rest.index("prunekit") + 1 :], whole)
            case ["python", script, *_] if script.endswith(".py") and "/" in script:
                assert (pages.ROOT / script).exists(), words


def check(words: list[str], whole: bool) -> None:
    """Parse a whole command; of one that is named in a sentence, its verb and options must exist."""
    if words[0].isupper() or words[0].startswith("-"):
        return  # a placeholder
    (verb,) = [path for path in VERBS if tuple(words[: len(path)]) == path]
    rest = words[len(verb) :]
    if whole:
        VERBS[verb].make_context(" ".join(verb), list(rest))
    options = {option for parameter in VERBS[verb].params for option in parameter.opts} | {"--help"}
    assert {word for word in rest if word.startswith("--")} <= options, words
    if verb in (("run",), ("plan",), ("study",)) and rest and rest[0] in REGISTRY.names("recipe"):
        read_recipe(rest[0], [word for word in rest[1:] if "=" in word and word[0] not in "-$"], REGISTRY)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW)
def test_slow_commands_run(page: str, tmp_path: Path) -> None:
    for block in pages.blocks(page):
        if block.mark.startswith("file: "):
            save(block, tmp_path)
        elif block.mark == "slow":
            for line in block.text.splitlines():
                script = line.replace("prunekit ", f"{sys.executable} -m prunekit ", 1)
                done = subprocess.run(script, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stderr


def test_every_public_name_is_described_once() -> None:
    described = [line.removeprefix("::: ") for page in GENERATED.values() for line in page.splitlines()]
    for name, home in homes().items():
        assert described.count(f"prunekit.{home}.{name}") == 1, name


def described() -> list[Any]:
    """Return everything that the API pages describe."""
    return [resolve(line[4:]) for page in GENERATED.values() for line in page.splitlines() if line.startswith("::: ")]


def resolve(path: str) -> Any:
    """Return what a dotted name is, modules imported on the way."""
    parts = path.split(".")
    thing = importlib.import_module(parts[0])
    for count, part in enumerate(parts[1:], start=2):
        if not hasattr(thing, part):
            importlib.import_module(".".join(parts[:count]))
        thing = getattr(thing, part)
    return thing


def named(text: str) -> set[str]:
    """Return the dotted names of ours in a text: in words, in imports, as an error that is raised."""
    found = set(re.findall(r"\b(prunekit(?:_mir_l)?(?:\.\w+)+)", text))
    for module, names in re.findall(r"from (prunekit(?:_mir_l)?(?:\.\w+)*) import ([\w, ]+)", text):
        found |= {f"{module}.{name.strip()}" for name in names.split(",")}
    found |= {f"prunekit{path}" for path in re.findall(r"\bpk((?:\.\w+)+)", text)}
    for raised in re.findall(r"^Raises:\n((?:    .*\n?)+)", text, re.MULTILINE):
        found |= {f"prunekit.errors.{name}" for name in re.findall(r"^    (\w+):", raised, re.MULTILINE)}
    return found - {f"prunekit.{kind}" for kind in registry.KINDS}  # groups of entry points


def test_every_name_that_is_mentioned_is_described() -> None:
    shown = described()
    texts = {page: pages.text(page) for page in pages.pages() if not page.startswith("decisions/")}
    texts |= {repr(thing): inspect.getdoc(thing) or "" for thing in shown}
    ids = {id(thing) for thing in shown}
    for where, text in texts.items():
        for path in named(text):
            thing, owner = resolve(path), resolve(path.rpartition(".")[0])
            assert inspect.ismodule(thing) or ids & {id(thing), id(owner)}, f"{path} in {where}"


def test_every_public_name_has_a_docstring_with_its_members() -> None:
    for name in homes():
        thing = getattr(pk, name)
        assert inspect.getdoc(thing), name
        if inspect.isclass(thing) and not issubclass(thing, Exception):
            for attribute, member in vars(thing).items():
                if attribute[0] != "_" and callable(getattr(member, "__func__", member)):
                    assert inspect.getdoc(member), f"{name}.{attribute}"


@pytest.mark.parametrize("kind", KINDS)
def test_every_choice_has_its_formula_and_paper(kind: str) -> None:
    own = {"at_once", "cosine", "dense", "explicit", "linear"}  # nobody's
    for name in REGISTRY.names(kind):
        thing = REGISTRY.get(kind, name)
        assert f"`{name}`" in GENERATED["reference/choices.md"]
        assert kind == "strategy" or section(thing, "Formula"), name
        assert bool(section(thing, "Reference")) == (name not in own), name


def test_every_option_of_a_recipe_is_described() -> None:
    lines = GENERATED["reference/choices.md"].splitlines()
    rows = {found[1]: (found[2], line) for line in lines if (found := re.match(r"\| \[`(\w+)`\]\[([\w.]+)\]", line))}
    assert {name: rows[name][0] for name in ("digits", "mir_l", "promptir_tiny", "structured")} == {
        "digits": "prunekit.digits.digits",
        "mir_l": "prunekit_mir_l.task.mir_l",
        "promptir_tiny": "prunekit_mir_l.promptir.PromptIR",
        "structured": "prunekit.structured.pruner.Structured",
    }
    for kind in (*KINDS, *OPTIONS_ONLY):
        assert set(REGISTRY.names(kind)) <= rows.keys(), kind
    assert all("`of: prunable`" in rows[name][1] for name in REGISTRY.names("strategy"))


def test_every_key_of_a_recipe_and_every_recipe_is_described() -> None:
    assert meanings().keys() | {"description"} == Recipe.model_fields.keys()
    assert all(meanings().values())
    for name in REGISTRY.names("recipe"):
        assert f"## `{name}`" in GENERATED["reference/recipe.md"]


def test_every_verb_is_described() -> None:
    for words, command in VERBS.items():
        assert f"## {' '.join(words)}\n\n{' '.join(command.help.split())}" in GENERATED["reference/cli.md"]


def test_the_options_without_a_verb_are_described() -> None:
    head = GENERATED["reference/cli.md"].partition("\n## ")[0]
    assert re.findall(r"^\| `(--[a-z-]+)`", head, re.MULTILINE) == [
        "--version",
        "--install-completion",
        "--show-completion",
    ]


def test_every_page_is_in_the_navigation() -> None:
    class Loader(yaml.SafeLoader):
        """Knows ``!ENV``."""

    Loader.add_constructor("!ENV", lambda loader, node: loader.construct_sequence(typing.cast(Any, node)))

    def leaves(tree: Any) -> list[str]:
        below = tree.values() if isinstance(tree, dict) else tree
        return [tree] if isinstance(tree, str) else [leaf for each in below for leaf in leaves(each)]

    navigation = leaves(yaml.load((pages.ROOT / "mkdocs.yml").read_text(), Loader)["nav"])
    assert sorted(navigation) == sorted([*pages.pages(), *GENERATED])
