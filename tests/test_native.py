"""The compiled kernels: one OpenMP in the process, and an install without them works and says once what it lacks."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import prunekit as pk
from prunekit import native
from prunekit.errors import PruneKitError

RUNTIMES = """
import pathlib, re, torch
def runtimes():
    return sorted(set(re.findall(r"/\\S*lib[gi]?omp\\S*", pathlib.Path("/proc/self/maps").read_text())))
before = runtimes()
from prunekit.native import kernels
assert kernels()
print(before == runtimes(), len(before) > 0)
"""


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """An install whose kernels were not built."""
    monkeypatch.setattr(native, "_found", lambda: native.NOT_BUILT)


def pruned() -> nn.Module:
    model = nn.Linear(64, 64)
    nn.init.zeros_(model.weight)
    return model


def test_either_there_are_kernels_or_a_reason() -> None:
    assert (native.kernels() is None) == (native.missing() != "")


@pytest.mark.skipif(native.kernels() is None, reason="the kernels were not built: no C compiler at install")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_kernels_bring_no_openmp_of_their_own() -> None:
    ran = subprocess.run([sys.executable, "-c", RUNTIMES], capture_output=True, text=True, check=True)
    assert ran.stdout == "True True\n"


def test_a_library_that_does_not_load_is_a_reason_not_a_crash(tmp_path: Path) -> None:
    file = tmp_path / "_kernels.so"
    file.write_bytes(b"\x7fELF, for some other machine")
    reason = native.load(str(file))
    assert isinstance(reason, str)
    assert reason.startswith(f"{file} does not load (")


def test_a_level_that_there_is_no_copy_for_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNEKIT_X86_64_LEVEL", "2")
    with pytest.raises(PruneKitError, match="PRUNEKIT_X86_64_LEVEL is '2'; set it to 4"):
        native.best_level()


@pytest.mark.usefixtures("without")
def test_without_kernels_compile_copies_and_says_what_to_do() -> None:
    model, x = pruned(), torch.rand(2, 64)
    with pytest.warns(RuntimeWarning, match="every layer stays dense: they were not built .* get GCC or Clang") as said:
        fast = pk.sparse.compile(model, x)
    assert [warning.filename for warning in said] == [__file__]  # it points at the caller
    assert fast is not model
    assert torch.equal(fast(x), model(x))


@pytest.mark.usefixtures("without")
def test_a_place_that_compiles_again_and_again_says_it_once() -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")  # as Python starts
        for _ in range(3):
            pk.sparse.compile(pruned(), torch.rand(1, 64))
    assert len(said) == 1


@pytest.mark.usefixtures("without")
def test_a_network_with_nothing_to_gain_hears_nothing() -> None:
    pk.sparse.compile(nn.Linear(64, 64), torch.rand(1, 64))  # a warning would be an error
