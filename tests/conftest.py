from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from prunekit.native import LEVELS, library
from prunekit.sparse.engine import build as building
from prunekit.sparse.engine.plan import Plan
from prunekit.sparse.engine.tune import Memo

torch.set_num_threads(1)  # so that timings and bits do not depend on what else the machine does


@pytest.fixture(autouse=True, scope="session")
def _measured_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is measured while testing says nothing about the machine at rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", params=LEVELS, ids=lambda level: f"level {level}")
def every_copy(request: pytest.FixtureRequest) -> Iterator[None]:
    """The kernels' copies one after the other, as far as this machine can run them."""
    if library().pk_machine(request.param) != request.param:
        pytest.skip("not on this machine")
    yield
    library().pk_machine(LEVELS[0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two grey images, each of one value."""
    from PIL import Image  # not there where only the kernels are tested

    (tmp_path / "images").mkdir()
    for index, value in enumerate((51, 204)):
        Image.new("L", (12, 10), value).save(tmp_path / "images" / f"{index}.png")
    return tmp_path / "images"


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module, Tensor], Plan]:
    """Returns a function that makes a plan with all that the kernels know on the kernels."""
    monkeypatch.setattr(building, "GAIN", math.inf)
    return lambda model, x: building.build(model, x, Memo(tmp_path))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave the modules out of garbage collections: a run makes one after each stage, which took most of its time."""
    gc.collect()
    gc.freeze()
