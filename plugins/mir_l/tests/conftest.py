from __future__ import annotations

from pathlib import Path

import data_folder
import pytest
import torch

torch.set_num_threads(1)  # so that timings and bits do not depend on what else the machine does


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return data_folder.make(tmp_path / "data")


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    """A folder deep enough that the names around it tell nothing."""
    return tmp_path / "a" / "b" / "c"
