from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from prunekit.sparse.native import LEVELS, library

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
