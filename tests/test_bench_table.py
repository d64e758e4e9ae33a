"""What ``prunekit bench`` prints and writes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

from prunekit.bench import Bench, Case, Machine, Row, Size
from prunekit.bench.plot import draw_speedup
from prunekit.bench.sheet import bench_csv
from prunekit.cli.bench import show_bench, verdict
from prunekit.errors import CheckpointError, Failed, PruneKitError, RecipeError
from prunekit.measure import Macs

SHAPE = (1, 3, 8, 8)


def case(backend: str, density: float = 0.1) -> Case:
    return Case(backend, SHAPE, 2, density)


FOUND = Bench(
    "net.safetensors",
    {
        1.0: Size(parameters=1000, prunable=800, kept=800, bytes_dense=4096, bytes_sparse=4200),
        0.1: Size(parameters=1000, prunable=800, kept=80, bytes_dense=4096, bytes_sparse=1300),
        0.05: Size(parameters=1000, prunable=800, kept=40, bytes_dense=4096, bytes_sparse=1100),
    },
    {(SHAPE, 1.0): Macs(64000, 64000), (SHAPE, 0.1): Macs(64000, 6400), (SHAPE, 0.05): Macs(64000, 3200)},
    Machine("A CPU", {"torch": "2.9", "openvino": "2026.4"}),
    (
        Row(case("eager"), (1200.0, 1000.0, 1100.0), 512.25, 0.0),
        Row(case("compile"), failure="InvalidCxxCompiler: no compiler [g++]"),
        Row(case("openvino"), (40.0, 60.0, 55.0, 50.0, 45.0), 170.5, 3e-7),
        Row(case("prunekit-dense", 1.0), (100.0,), 300.0, 1e-7),
        Row(case("prunekit", 0.1), (50.0,), 300.0, 1e-7),
        Row(case("prunekit", 0.05), (25.0,), 300.0),
    ),
    ("onnxruntime",),
)
PRINTED = """\
A CPU; torch 2.9, openvino 2026.4
net.safetensors: 1,000 parameters, 800 of them prunable; 4.096 kB as a dense float32 file
kept of prunable  of all parameters  sparse file
     80 (10.00%)       280 (28.00%)       1.3 kB
      40 (5.00%)       240 (24.00%)       1.1 kB

input 1x3x8x8, 2 threads: 64 kMAC with every weight
                  MAC  median    25 % .. 75 %    speed-up  peak     differs
backend          left      ms              ms  over eager   MiB  by at most
eager            64 k   1,100  1,050 .. 1,150       1.00x   512           0
compile          64 k  failed
openvino         64 k    50.0    45.0 .. 55.0      22.00x   170     3.0e-07
prunekit-dense   64 k   100.0  100.0 .. 100.0      11.00x   300     1.0e-07
prunekit 10 %   6.4 k    50.0    50.0 .. 50.0      22.00x   300     1.0e-07
prunekit 5 %    3.2 k    25.0    25.0 .. 25.0      44.00x   300           -
prunekit breaks even with the best dense engine here (openvino, 50.0 ms) at about 10 % kept

compile at 1x3x8x8, 2 threads failed: InvalidCxxCompiler: no compiler [g++]
not installed: onnxruntime
"""
HEADER = (
    "source,backend,input,threads,density,median_ms,quartile1_ms,quartile3_ms,min_ms,passes,speedup_over_eager,"
    "speedup_over_best_dense,peak_mib,max_difference,failure,parameters,prunable,kept,bytes_dense,bytes_sparse,"
    "kept_of_all,macs_dense,macs_kept,parameters_before,macs_before,cpu,versions"
)
MACHINE = "A CPU,torch=2.9 openvino=2026.4"
CSV = [
    HEADER,
    "net.safetensors,eager,1x3x8x8,2,0.1,1100.0,1050.0,1150.0,1000.0,3,1.0,0.045454545454545456,512.25,0.0,,1000,800,"
    f"80,4096,1300,280,64000,6400,1000,64000,{MACHINE}",
    "net.safetensors,compile,1x3x8x8,2,0.1,,,,,0,,,,,InvalidCxxCompiler: no compiler [g++],1000,800,80,4096,1300,280,"
    f"64000,6400,1000,64000,{MACHINE}",
    "net.safetensors,openvino,1x3x8x8,2,0.1,50.0,45.0,55.0,40.0,5,22.0,1.0,170.5,3e-07,,1000,800,80,4096,1300,280,64000,"
    f"6400,1000,64000,{MACHINE}",
    "net.safetensors,prunekit-dense,1x3x8x8,2,1.0,100.0,100.0,100.0,100.0,1,11.0,0.5,300.0,1e-07,,1000,800,800,4096,"
    f"4200,1000,64000,64000,1000,64000,{MACHINE}",
    "net.safetensors,prunekit,1x3x8x8,2,0.1,50.0,50.0,50.0,50.0,1,22.0,1.0,300.0,1e-07,,1000,800,80,4096,1300,280,64000,"
    f"6400,1000,64000,{MACHINE}",
    "net.safetensors,prunekit,1x3x8x8,2,0.05,25.0,25.0,25.0,25.0,1,44.0,2.0,300.0,,,1000,800,40,4096,1100,240,64000,"
    f"3200,1000,64000,{MACHINE}",
]


def show(
    file: Path | None = None, plot: Path | None = None, shapes: tuple[str, ...] = (), backends: tuple[str, ...] = ()
) -> None:
    show_bench(
        "net.safetensors",
        stage=None,
        network=None,
        shapes=shapes,
        backends=backends,
        threads=[2],
        densities=[0.1, 0.05],
        runs=3,
        file=file,
        plot=plot,
    )


def test_tables_csv_and_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake(source: str, **options: Any) -> Bench:
        assert (source, options["shapes"], options["runs"]) == ("net.safetensors", [SHAPE], 3)
        assert (options["threads"], options["densities"]) == ([2], [0.1, 0.05])
        options["progress"]("preparing [a] thing")
        return FOUND

    monkeypatch.setattr("prunekit.cli.bench.bench", fake)
    show(tmp_path / "new.csv", tmp_path / "new.svg", ("1x3x8x8",))
    assert (tmp_path / "new.csv").read_text().splitlines() == bench_csv(FOUND).splitlines() == CSV
    assert "<svg" in (tmp_path / "new.svg").read_text()
    out, err = capsys.readouterr()
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[: PRINTED.count("\n")] == PRINTED.splitlines()
    assert err == "preparing [a] thing\n"
    assert max(map(len, lines[2:15])) <= 80


@pytest.mark.parametrize("name", ["old.csv", "old.png"])
def test_existing_files_are_left_alone_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("prunekit.cli.bench.bench", None)
    (tmp_path / name).write_text("mine")
    with pytest.raises(CheckpointError, match=f"{name} exists already"):
        show(tmp_path / "old.csv", tmp_path / "old.png")
    assert (tmp_path / name).read_text() == "mine"


def test_a_plot_that_cannot_be_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunekit.cli.bench.bench", None)
    with pytest.raises(RecipeError, match=r"--plot writes \.png or \.svg, not 'a\.jpg'"):
        show(plot=tmp_path / "a.jpg")
    for backends in (("eager", "openvino"), ("prunekit", "prunekit-dense")):
        with pytest.raises(RecipeError, match="add --backend prunekit and --backend eager"):
            show(plot=tmp_path / "a.png", backends=backends)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PruneKitError, match=r'pip install "prunekit\[report\]"'):
        show(plot=tmp_path / "a.png", backends=("prunekit", "eager"))


@pytest.mark.parametrize(
    ("times_ms", "said"),
    [
        ({1.0: 100.0, 0.1: 80.0, 0.05: 60.0}, "prunekit does not break even with RIVAL: slower even at 5 % kept"),
        ({1.0: 49.0, 0.1: 40.0, 0.05: 30.0}, "prunekit is faster than RIVAL wherever measured, up to 100 % kept"),
        ({0.1: 40.0}, "prunekit is faster than RIVAL wherever measured, up to 10 % kept"),
    ],
)
def test_the_verdict_says_whether_zeros_pay(times_ms: dict[float, float], said: str) -> None:
    ours = tuple(Row(case("prunekit", density), (ms,)) for density, ms in times_ms.items())
    found = dataclasses.replace(FOUND, rows=(*FOUND.rows[:3], *ours))
    rival = "the best dense engine here (openvino, 50.0 ms)"
    assert list(verdict(found, (SHAPE, 2))) == [said.replace("RIVAL", rival)]


def test_without_a_dense_engine_there_is_no_verdict_and_no_picture(tmp_path: Path) -> None:
    found = dataclasses.replace(FOUND, rows=FOUND.rows[3:])
    assert list(verdict(found, (SHAPE, 2))) == []
    with pytest.raises(Failed, match="was not drawn"):
        draw_speedup(found, tmp_path / "a.png")


def test_pictures_of_one_bench_are_equal_files(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "a.svg", "b.svg"):
        draw_speedup(FOUND, tmp_path / name)
    for kind in ("png", "svg"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    picture = (tmp_path / "a.svg").read_text()
    assert all(
        f"<!-- {text} -->" in picture for text in ("break-even at 10 % kept", "over eager", "nothing cut", "5 %")
    )


def test_one_pass_has_no_spread() -> None:
    assert Row(case("eager"), (3.0,)).quartiles_ms == (3.0, 3.0, 3.0)
