"""What ``prunekit bench`` prints and writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prunekit.bench import Bench, Machine, Row, Size
from prunekit.cli.bench import bench_csv, show_bench
from prunekit.errors import CheckpointError
from prunekit.measure import Macs

SHAPE = (1, 3, 8, 8)
FOUND = Bench(
    "net.safetensors",
    Size(parameters=1000, prunable=800, kept=80, bytes_dense=4096, bytes_sparse=1300),
    {SHAPE: Macs(64000, 6400)},
    Machine("A CPU", 2, {"torch": "2.9", "openvino": "2026.4"}),
    (
        Row("eager", SHAPE, (1200.0, 1000.0, 1100.0), 512.25, 0.0),
        Row("compile", SHAPE, failure="InvalidCxxCompiler: no compiler [g++]"),
        Row("openvino", SHAPE, (40.0, 60.0, 55.0, 50.0, 45.0), 170.5, 3e-7),
    ),
    ("onnxruntime",),
)
PRINTED = """\
net.safetensors: kept 80 of 800 (10.00%) prunable, 280 of 1,000 (28.00%) of all parameters
on disk: 4.096 kB dense float32, 1.3 kB as a sparse file
A CPU, 2 threads; torch 2.9, openvino 2026.4

input 1x3x8x8: 64 kMAC dense, 6.4 kMAC with a kept weight
          median    25 % .. 75 %    speed-up  peak     differs
backend       ms              ms  over eager   MiB  by at most
eager      1,100  1,050 .. 1,150       1.00x   512           0
compile   failed
openvino    50.0    45.0 .. 55.0      22.00x   170     3.0e-07

compile at 1x3x8x8 failed: InvalidCxxCompiler: no compiler [g++]
not installed: onnxruntime
"""
CSV = (
    "source,backend,input,median_ms,quartile1_ms,quartile3_ms,min_ms,passes,speedup_over_eager,peak_mib,"
    "max_difference,failure,parameters,prunable,kept,bytes_dense,bytes_sparse,kept_of_all,macs_dense,macs_kept,cpu,"
    "threads,versions\n"
    "net.safetensors,eager,1x3x8x8,1100.0,1050.0,1150.0,1000.0,3,1.0,512.25,0.0,,1000,800,80,4096,1300,280,64000,6400,"
    "A CPU,2,torch=2.9 openvino=2026.4\n"
    "net.safetensors,compile,1x3x8x8,,,,,0,,,,InvalidCxxCompiler: no compiler [g++],1000,800,80,4096,1300,280,64000,"
    "6400,A CPU,2,torch=2.9 openvino=2026.4\n"
    "net.safetensors,openvino,1x3x8x8,50.0,45.0,55.0,40.0,5,22.0,170.5,3e-07,,1000,800,80,4096,1300,280,64000,6400,"
    "A CPU,2,torch=2.9 openvino=2026.4\n"
)


def show(file: Path | None, shapes: tuple[str, ...] = ()) -> None:
    show_bench("net.safetensors", stage=None, network=None, shapes=shapes, backends=(), runs=3, threads=None, file=file)


def test_tables_and_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fake(source: str, **options: Any) -> Bench:
        assert (source, options["shapes"], options["runs"]) == ("net.safetensors", [SHAPE], 3)
        options["progress"]("preparing [a] thing")
        return FOUND

    monkeypatch.setattr("prunekit.cli.bench.bench", fake)
    show(tmp_path / "new.csv", ("1x3x8x8",))
    assert (tmp_path / "new.csv").read_text() == bench_csv(FOUND) == CSV
    out, err = capsys.readouterr()
    lines = [line.rstrip() for line in out.splitlines()]
    assert "\n".join(lines).startswith(PRINTED.rstrip())
    assert err == "preparing [a] thing\n"
    assert max(map(len, lines[4:10])) <= 80


def test_an_existing_csv_is_left_alone_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunekit.cli.bench.bench", None)
    (tmp_path / "old.csv").write_text("mine")
    with pytest.raises(CheckpointError, match="old.csv exists already"):
        show(tmp_path / "old.csv")
    assert (tmp_path / "old.csv").read_text() == "mine"


def test_one_pass_has_no_spread() -> None:
    assert Row("eager", SHAPE, (3.0,)).quartiles_ms == (3.0, 3.0, 3.0)
