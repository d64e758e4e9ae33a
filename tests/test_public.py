"""The public surface, the import levels, and what may not be imported for a help text."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest

import prunekit

PACKAGE = Path(prunekit.__file__).parent


def test_public_names_are_sorted_documented_and_load() -> None:
    assert list(prunekit.__all__) == sorted(prunekit.__all__, key=lambda name: (name[0].islower(), name))
    assert dir(prunekit) == sorted(prunekit.__all__)
    for name in prunekit.__all__:
        value = getattr(prunekit, name)
        assert value.__doc__, name
        assert not isinstance(value, types.ModuleType), name
    with pytest.raises(AttributeError, match="no attribute 'magnitud'"):
        prunekit.magnitud  # noqa: B018


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "import prunekit"],
        ["-m", "prunekit", "--help"],
        ["-m", "prunekit", "--version"],
        ["-m", "prunekit", "list"],
    ],
)
def test_neither_help_nor_import_loads_torch(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "prunekit" in loaded or arguments[0] == "-m"
    assert not loaded & {"torch", "numpy", "timm", "skimage", "matplotlib"}


def test_imports_point_down_only() -> None:
    from importlinter.cli import lint_imports

    assert lint_imports(config_filename=str(PACKAGE.parent / "pyproject.toml"), no_cache=True) == 0


def test_files_stay_short() -> None:
    sources = [
        *PACKAGE.rglob("*.py"),
        *(PACKAGE.parent / "plugins").rglob("*.py"),
        *Path(__file__).parent.rglob("*.py"),
    ]
    long = {path.name: count for path in sources if (count := len(path.read_text().splitlines())) > 300}
    assert long == {}
