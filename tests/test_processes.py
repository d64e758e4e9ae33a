"""Two processes train the same ticket as one, by recipe and in a loop of one's own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from prunekit.files import read_tensors

TESTS = Path(__file__).parent
OVERRIDES = ("task.double=true", "task.dropout=0", "task.batch_norm=false", "task.unused=true", "task.steps=15")


def run(processes: int, *program: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={port}"]
    done = subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), *program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["toy", "toy_structured"])
def test_two_gloo_processes_equal_one(recipe: str, tmp_path: Path) -> None:
    for processes, name in ((1, "one"), (2, "two")):
        options = (*OVERRIDES, "--out", str(tmp_path / name), "--device", "cpu")
        run(processes, "-m", "prunekit", "run", str(TESTS / f"{recipe}.yaml"), *options)
    for stage in ("00-1.0000", "01-0.5000", "02-0.2500"):
        one, two = tmp_path / "one" / stage / "done", tmp_path / "two" / stage / "done"
        assert (one / "cut.safetensors").read_bytes() == (two / "cut.safetensors").read_bytes()
        theirs = read_tensors(two / "weights.safetensors")
        for name, tensor in read_tensors(one / "weights.safetensors").items():
            assert (tensor - theirs[name]).abs().max() <= 1e-12, name
        measures = [json.loads((done / "metrics.json").read_text()) for done in (one, two)]
        for left, right in zip(*measures, strict=True):
            assert left["item"] == right["item"]
            assert left["value"] == pytest.approx(right["value"], abs=1e-12)
        assert json.loads((two / "stage.json").read_text())["unused"] == ["idle"]


@pytest.mark.slow
def test_two_processes_of_ones_own_loop_equal_one(tmp_path: Path) -> None:
    for processes, name in ((1, "one"), (2, "two")):
        (tmp_path / name).mkdir()
        run(processes, str(TESTS / "own_loop_main.py"), str(tmp_path / name))
    files = (tmp_path / "one" / "0.safetensors", *(tmp_path / "two" / f"{rank}.safetensors" for rank in range(2)))
    one, first, second = map(read_tensors, files)
    assert one.keys() == first.keys() == second.keys() >= {"0.weight", "4.weight", "bits/0.weight", "bits/4.weight"}
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
        assert torch.equal(tensor, one[name]) if "/" in name else (tensor - one[name]).abs().max() <= 1e-12, name
