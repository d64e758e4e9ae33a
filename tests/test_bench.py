"""Bench: order of the passes, failures as rows, processes that end, and what is printed."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunekit.bench import Case, Row, backends, bench, client, parse_shape, turns, worker
from prunekit.bench.backends import Job, choose
from prunekit.errors import Failed, RecipeError
from prunekit.masks import Masks
from prunekit.measure import Macs
from prunekit.sparse.source import load, save
from prunekit.sparse.ticket_file import save_ticket

NETWORKS = """
import os, subprocess, time, torch
from torch import nn

def in_worker():
    return os.environ["BENCH_TEST"] != str(os.getpid())

class Fragile(nn.Linear):
    "Says much, and two inputs at once kill its process where that is a worker."
    def forward(self, x):
        print("to stdout")
        os.write(1, b"past Python, too\\n")
        if len(x) == 2 and in_worker():
            os.kill(os.getpid(), 9)
        if len(x) == 3 and in_worker():
            raise ValueError("three are too many\\nsecond line")
        return {"y": super().forward(x), "none": None}

class Threads(nn.Linear):
    "Returns its input and the number of threads."
    def forward(self, x):
        return x, torch.tensor(torch.get_num_threads())

def one_size():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 128 * 128, 1))

def compiling():
    "Starts a process, as compilers do, that holds a named pipe open; and is busy."
    subprocess.Popen(["sh", "-c", "exec 3> $BENCH_TEST_PIPE; exec sleep 600"])
    time.sleep(600)
"""
FRAGILE = {"name": "python:bench_networks:Fragile", "in_features": 4, "out_features": 4}


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make networks importable, here and therefore in workers."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "bench_networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delitem(sys.modules, "bench_networks", raising=False)
    monkeypatch.setenv("BENCH_TEST", str(os.getpid()))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[str]]:
    """Return the list of processes that get started."""
    found: list[subprocess.Popen[str]] = []
    real = subprocess.Popen

    def recording(*args: Any, **kwargs: Any) -> subprocess.Popen[str]:
        found.append(real(*args, **kwargs))
        return found[-1]

    monkeypatch.setattr(client.subprocess, "Popen", recording)
    return found


def job(**changes: Any) -> Job:
    return dataclasses.replace(Job("net", None, FRAGILE, "eager", (1, 4), 1.0, "float32", 1, ""), **changes)


# --- real processes -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_ticket_is_measured_and_a_backend_that_dies_is_a_row_that_says_so(
    tmp_path: Path, networks: None, started: list[subprocess.Popen[str]]
) -> None:
    model, masks = nn.Linear(4, 4), Masks({"weight": torch.eye(4, dtype=torch.bool)})
    masks.apply_(model)
    save(model, masks, tmp_path / "ticket.safetensors", example=torch.zeros(1, 4))
    said: list[str] = []
    found = bench(
        tmp_path / "ticket.safetensors",
        network=FRAGILE,
        shapes=[(1, 4), (2, 4)],
        backends=["eager"],
        runs=3,
        threads=[1],
        progress=said.append,
    )
    good, dead = found.rows
    assert (good.case, good.failure, good.difference) == (Case("eager", (1, 4), 1, 0.25), "", 0.0)
    assert len(good.times_ms) == 3 and good.peak_mib is not None and good.peak_mib > 10 and good.faster_than(good) == 1
    killed = "its process was killed; most likely the memory ran out"
    assert dead == Row(Case("eager", (2, 4), 1, 0.25), failure=killed)
    assert dead.faster_than(good) is None and good.faster_than(dead) is None
    size = found.sizes[0.25]
    assert (size.parameters, size.prunable, size.kept, size.kept_of_all) == (20, 16, 4, 8)
    save_ticket(load(tmp_path / "ticket.safetensors", network=FRAGILE), tmp_path / "again")
    assert size.bytes_dense > 80 and size.bytes_sparse == (tmp_path / "again").stat().st_size
    assert found.macs == {((1, 4), 0.25): Macs(16, 4), ((2, 4), 0.25): Macs(32, 8)}
    assert found.machine.versions == {"torch": torch.__version__}
    assert said[1] == "preparing eager at 1x4, 1 thread" and said[2] == "measuring, 3 rounds"
    assert len(started) == 2 and all(process.poll() is not None for process in started)


@pytest.mark.slow
def test_a_worker_has_the_threads_and_the_seeded_input_and_answers_after_an_error(
    tmp_path: Path, networks: None
) -> None:
    network = {**FRAGILE, "name": "python:bench_networks:Threads"}
    output = tmp_path / "output.npy"
    with client.Worker(tmp_path / "log") as asked:
        with pytest.raises(Failed, match=r"^no/such: there is no such file or run directory\.$"):
            asked.ask({"do": "prepare", "job": dataclasses.asdict(job(source="no/such", network=None))})
        with pytest.raises(Failed, match=r"^ValueError: three are too many$"):
            asked.ask({"do": "prepare", "job": dataclasses.asdict(job(shape=(3, 4))), "output": str(output)})
        prepare = {"do": "prepare", "job": dataclasses.asdict(job(network=network, threads=3)), "output": str(output)}
        assert asked.ask(prepare) > 10
        assert asked.ask({"do": "run"}) > 0
    x = np.random.default_rng(0).random((1, 4), dtype=np.float32)
    assert np.load(output).tolist() == [*x[0].tolist(), 3.0]


@pytest.mark.slow
def test_ctrl_c_leaves_no_worker_behind(networks: None, started: list[subprocess.Popen[str]]) -> None:
    def progress(text: str) -> None:
        if text.startswith("preparing eager-heap"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench("net", network=FRAGILE, shapes=[(1, 4)], backends=["eager", "eager-heap"], progress=progress)
    assert len(started) == 1 and started[0].poll() is not None


@pytest.mark.slow
@pytest.mark.timeout(100)
def test_a_busy_worker_ends_with_its_parent_and_takes_along_what_it_started(
    tmp_path: Path, networks: None, started: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_TEST_PIPE", str(tmp_path / "pipe"))
    os.mkfifo(tmp_path / "pipe")
    busy = dataclasses.asdict(job(network="python:bench_networks:compiling"))
    with client.Worker(tmp_path / "log"):
        [process] = started
        assert process.stdin is not None
        process.stdin.write(json.dumps({"do": "prepare", "job": busy, "output": ""}) + "\n")
        process.stdin.flush()
        pipe = (tmp_path / "pipe").open("rb")  # waits until it has begun
        process.stdin.close()
        assert process.wait(timeout=60) == 0
    with pipe:
        assert pipe.read() == b""  # waits until nobody holds the other end


def test_a_worker_that_cannot_start_leaves_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('numpy is broken')")
    monkeypatch.syspath_prepend(tmp_path)
    with client.Worker(tmp_path / "log") as asked, pytest.raises(Failed) as caught:
        asked.ask({"do": "run"})
    assert str(caught.value) == "its process died (exit code 1): numpy is broken"


@pytest.mark.slow
def test_every_engine_gives_eagers_output() -> None:
    for package in ("onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    network = {"name": "python:torch.nn:Conv2d", "in_channels": 3, "out_channels": 4, "kernel_size": 3}
    found = bench("conv", network=network, shapes=[(1, 3, 16, 16), (1, 3, 24, 32)], runs=1)
    names = ["eager", "eager-heap", "compile", "onnxruntime", "openvino", "prunekit-dense", "prunekit"]
    assert [row.case.backend for row in found.rows[:7]] == names
    assert [row.failure for row in found.rows] == [""] * 14
    assert all(row.difference is not None and row.difference < 1e-5 for row in found.rows)


# --- turns --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Fake:
    """Counts its passes in a shared diary; fails from the ``patience``-th on."""

    name: str
    diary: list[str]
    patience: int = 99

    def ask(self, request: Mapping[str, Any]) -> Any:
        assert request == {"do": "run"}
        self.diary.append(self.name)
        if self.diary.count(self.name) >= self.patience:
            raise Failed("tired")
        return float(len(self.diary))


def test_passes_are_interleaved_and_a_failing_worker_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PAUSE_S", 0)
    diary: list[str] = []
    keys = [Case(name, (1,), 1, 1.0) for name in "abc"]
    workers = {key: Fake(key.backend, diary, 2 if key.backend == "b" else 99) for key in keys}
    failures: dict[Case, str] = {}
    times = turns.take_turns(workers, 3, failures, lambda text: None)
    assert "".join(diary) == "abcabcac"
    assert times == {keys[0]: [1.0, 4.0, 7.0], keys[2]: [3.0, 6.0, 8.0]}
    assert failures == {keys[1]: "tired"}


def test_a_short_pass_is_repeated_until_caches_are_warm_and_a_long_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(worker.time, "perf_counter", lambda: clock[0])

    def step(passes_s: list[float]) -> None:
        clock[0] += passes_s.pop(0)

    assert worker._timed_ms(lambda p=[0.03, 0.021, 0.001]: step(p)) == pytest.approx(21)
    assert worker._timed_ms(lambda p=[0.3, 0.2]: step(p)) == pytest.approx(300)


def test_differences_are_absolute_and_nan_where_outputs_cannot_be_compared(tmp_path: Path) -> None:
    arrays = {"a": [1.0, 2.0], "b": [1.5, 1.0], "short": [1.0], "nan": [1.0, np.nan]}
    paths = {name: tmp_path / f"{name}.npy" for name in arrays}
    for name, values in arrays.items():
        np.save(paths[name], np.array(values, np.float32))
    assert turns._difference(paths["b"], paths["a"]) == 1.0
    assert turns._difference(paths["a"], paths["a"]) == 0.0
    assert np.isnan([turns._difference(paths[name], paths["a"]) for name in ("short", "nan")]).all()
    assert turns._difference(paths["a"], tmp_path / "never") is None


# --- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "shape"), [("1x3x128x96", (1, 3, 128, 96)), ("7", (7,))])
def test_shapes_are_read(text: str, shape: tuple[int, ...]) -> None:
    assert parse_shape(text) == shape


@pytest.mark.parametrize("text", ["", "1x", "x3", "1x0x4", "1,3", "1x-3", "01x3", "1X3", "axb"])
def test_other_shapes_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="joined by x"):
        parse_shape(text)


def test_backends_that_are_not_installed_are_left_out_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None if name == "onnx" else name)
    assert choose(()) == (
        ("eager", "eager-heap", "compile", "prunekit-dense", "prunekit"),
        ("onnxruntime", "openvino"),
    )
    assert choose(["compile", "eager"]) == (("eager", "compile"), ())
    with pytest.raises(RecipeError, match=r'openvino needs .* not installed: pip install "prunekit\[onnx\]" openvino'):
        choose(["eager", "openvino"])
    with pytest.raises(RecipeError, match="--backend 'eagre' is not known; did you mean 'eager'"):
        choose(["eagre"])


def test_options_that_make_no_sense_are_refused(started: list[subprocess.Popen[str]]) -> None:
    linear = {"name": "python:torch.nn:Linear", "in_features": 4, "out_features": 4}
    with pytest.raises(RecipeError, match="--runs and --threads must be at least 1"):
        bench("net", network=linear, runs=0)
    with pytest.raises(RecipeError, match="--runs and --threads must be at least 1"):
        bench("net", network=linear, threads=[1, 0])
    with pytest.raises(RecipeError, match=r"does not take an input of shape 1x5 \(.*\); give another --shape"):
        bench("net", network=linear, shapes=[(1, 4), (1, 5)])
    assert not started


@pytest.mark.parametrize(
    ("network", "shapes"),
    [
        ({"name": "python:torch.nn:Conv2d", "in_channels": 3, "out_channels": 4, "kernel_size": 3}, [128, 256]),
        ("python:bench_networks:one_size", [128]),
    ],
)
def test_by_default_images_are_also_doubled_where_the_network_takes_that(
    networks: None, monkeypatch: pytest.MonkeyPatch, network: str | dict[str, Any], shapes: list[int]
) -> None:
    monkeypatch.setattr(turns, "_rows", lambda *_: ())
    found = bench("net", network=network, backends=["eager"])
    assert list(found.macs) == [((1, 3, side, side), 1.0) for side in shapes]
