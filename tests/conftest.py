from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

torch.set_num_threads(1)  # so that timings and bits do not depend on what else the machine does


@pytest.fixture(autouse=True, scope="session")
def _measured_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is measured while testing says nothing about the machine at rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
