from __future__ import annotations

from pathlib import Path

import pytest

from prunekit.errors import Failed
from prunekit.trainlog import TrainLog


def logged(path: Path, *clocks: int) -> None:
    log = TrainLog(path, steps=10)
    for clock in clocks:
        log.write(clock, 0.5, 1.0)
    log.close()


def test_cutting_back_drops_later_steps_and_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    logged(path, 0, 1, 2, 3)
    with path.open("a") as file:
        file.write('{"clock": 4, "lo')
    log = TrainLog(path, steps=10)
    log.cut_back(2)
    logged(path, 2)
    assert path.read_text().splitlines() == [
        f'{{"clock": {clock}, "loss": 0.5, "lr_factor": 1.0}}' for clock in (0, 1, 2)
    ]


def test_a_long_stage_is_logged_at_every_nth_step(tmp_path: Path) -> None:
    log = TrainLog(tmp_path / "log.jsonl", steps=5000)
    for clock in range(20):
        log.write(clock, 1.0, 1.0)
    log.close()
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told() -> None:
    log = TrainLog(Path("/dev/full"), steps=10)
    with pytest.raises(Failed, match="the disk is full"):
        log.write(0, 1.0, 1.0)
    log.close()
