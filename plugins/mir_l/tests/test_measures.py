"""What restore measures: against which target, in which colours, and what becomes of its table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_restore import SAME, paint, restore
from torch import nn

from prunekit.errors import DataError
from prunekit.imaging import ImageCall
from prunekit_mir_l.cli_data import shown
from prunekit_mir_l.measures import Targets
from prunekit_mir_l.restore_files import plan, restore_files
from prunekit_mir_l.restorer import Restorer


def psnrs(table: Path) -> dict[str, str]:
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    return {row[0]: row[2] for row in rows if row[1] == "psnr"}


def test_a_target_is_found_by_its_place_before_its_name(tmp_path: Path) -> None:
    for place, value in (("a.png", 100), ("deep/a.png", 100), ("deep/b.png", 100)):
        paint(tmp_path / "in" / place, value)
    for place, value in (("a.png", 125), ("deep/a.png", 110), ("elsewhere/b_gt.png", 125)):
        paint(tmp_path / "gt" / place, value)
    out = tmp_path / "out"
    told = restore(plan([tmp_path / "in"], out), targets=tmp_path / "gt", table=out / "metrics.csv")
    assert not any(failed for _, failed in told)
    assert psnrs(out / "metrics.csv") == {"a.png": "20.172", "deep/a.png": "28.1308", "deep/b.png": "20.172"}


def test_a_name_that_two_targets_have_is_told(tmp_path: Path) -> None:
    image = paint(tmp_path / "in" / "a.png")
    for place in ("one/a.png", "two/a.png"):
        paint(tmp_path / "gt" / place)
    with pytest.raises(DataError, match=r"in/a\.png: .*one/a\.png and .*two/a\.png may both be its target"):
        Targets(tmp_path / "gt").of(image, Path("a.png"))


def test_no_image_is_its_own_target(tmp_path: Path) -> None:
    rainy, clean = paint(tmp_path / "1_rainy.png"), paint(tmp_path / "1_gt.png")
    targets = Targets(tmp_path)
    assert targets.of(rainy, Path("1_rainy.png")) == clean
    with pytest.raises(DataError, match=r"1_gt\.png: .* has no target of its name"):
        targets.of(clean, Path("1_gt.png"))


def test_grey_pictures_are_measured_in_grey(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (20, 16), (255, 0, 0)).save(image)  # of luma 76
    Image.new("RGB", (20, 16), (101, 101, 101)).save(tmp_path / "clean.png")
    grey = Restorer(nn.Identity(), ImageCall(channels=1))
    told = list(restore_files(grey, plan([image], tmp_path / "out"), targets=tmp_path / "clean.png"))
    assert told[1].text.startswith("    psnr 20.17 -> 20.17; ssim ")
    assert "psnr_y" not in told[1].text
    assert told[2].text.startswith("mean psnr of 1: input 20.17, restored 20.17 (grey (BT.601 luma, 8 bits), float")


def test_too_small_pictures_are_not_measured_and_told(tmp_path: Path) -> None:
    image = paint(tmp_path / "a.png", size=(40, 10))
    told = restore(plan([image], tmp_path / "out"), targets=paint(tmp_path / "b.png", size=(40, 10)))
    assert told[1:] == [("    not measured: 40x10 pixels, and the metrics need 11x11", False)]


def test_the_table_keeps_what_was_measured_before_and_gets_what_was_not(tmp_path: Path) -> None:
    images = [paint(tmp_path / "in" / f"{name}.png", 100) for name in "abc"]
    for name in "abc":
        paint(tmp_path / "gt" / f"{name}.png", 125)
    out = tmp_path / "out"
    table = out / "metrics.csv"
    restore(plan(images[:1], out), targets=tmp_path / "gt" / "a.png", table=table)
    table.write_text(table.read_text().replace("20.172", "21.5"))
    restore(plan(images[1:2], out))
    kept = (out / "a.png").stat().st_mtime_ns
    told = restore(plan([tmp_path / "in"], out, skip_existing=True), targets=tmp_path / "gt", table=table)
    assert psnrs(table) == {"a.png": "21.5", "b.png": "20.172", "c.png": "20.172"}
    assert told[0][0] == f"{out / 'b.png'}: there already"
    assert any(text.startswith("mean psnr of 3: input 20.61, restored") for text, _ in told)
    assert (out / "a.png").stat().st_mtime_ns == kept


@pytest.mark.parametrize("mine", ["mine,too\n1,2\n", "", "image,metric,mine,output,protocol\na.png,psnr,1,2,x\n"])
def test_a_table_of_ones_own_is_left_alone(tmp_path: Path, mine: str) -> None:
    image = paint(tmp_path / "a.png")
    table = tmp_path / "out" / "metrics.csv"
    table.parent.mkdir()
    table.write_text(mine)
    with pytest.raises(DataError, match=r"metrics\.csv is no table that `restore --metrics` wrote, and is left as it"):
        restore(plan([image], tmp_path / "out"), targets=image, table=table)
    assert (table.read_text(), [p.name for p in table.parent.iterdir()]) == (mine, ["metrics.csv"])


def test_a_side_by_side_in_the_way_is_told_before_any_work_and_a_missing_one_is_made(tmp_path: Path) -> None:
    images = [paint(tmp_path / f"{name}.png") for name in "ab"]
    out = tmp_path / "out"
    paint(out / "b.png.compare.png", 7)
    with pytest.raises(DataError, match=r"b\.png\.compare\.png exists already and is left as it is"):
        plan(images, out, compare=True)
    restore(plan(images, out))
    restore(plan(images, out, compare=True, skip_existing=True), compare=True)
    sizes = {}
    for path in out.glob("*.compare.png"):
        with Image.open(path) as sheet:
            sizes[path.name] = sheet.size
    assert sizes == {"a.png.compare.png": (40, 32), "b.png.compare.png": (20, 16)}


def test_a_target_of_another_size_is_not_shown(tmp_path: Path) -> None:
    image, target = paint(tmp_path / "a.png"), paint(tmp_path / "gt.png", size=(20, 17))
    told = restore(plan([image], tmp_path / "out", compare=True), compare=True, targets=target)
    assert [failed for _, failed in told] == [False, True]
    with Image.open(tmp_path / "out" / "a.png.compare.png") as sheet:
        assert sheet.size == (40, 32)  # two panels


def test_what_lies_there_and_has_another_size_is_told(tmp_path: Path) -> None:
    image = paint(tmp_path / "a.png")
    paint(tmp_path / "out" / "a.png", size=(9, 9))
    (told,) = restore(plan([image], tmp_path / "out", compare=True, skip_existing=True), compare=True)
    assert told == (
        f"{tmp_path / 'out' / 'a.png'} is there already and has another size than {image}: remove it.",
        True,
    )


def test_thousands_of_names_are_planned_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared, same = [], Path.__eq__
    for number in range(100):
        (tmp_path / f"{number}.png").touch()
    monkeypatch.setattr(Path, "__eq__", lambda a, b: compared.append(a) or same(a, b))
    assert len(plan([tmp_path], tmp_path / "out")) == 100
    assert len(compared) < 500  # 9,900 where each is compared with each


def test_progress_is_of_all_pictures_and_of_one(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    jobs = plan([paint(tmp_path / "a.png"), paint(tmp_path / "b.png")], tmp_path / "out")
    list(restore_files(SAME, jobs, progress=lambda what, done, of: told.append((what, done, of))))
    assert told == [
        *(("pictures", 0, 2), ("a.png", 0, 1), ("a.png", 1, 1)),
        *(("pictures", 1, 2), ("b.png", 0, 1), ("b.png", 1, 1)),
        ("pictures", 2, 2),
    ]


def test_bars_go_when_they_are_full(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich import progress as rich_progress

    bars: list[rich_progress.Progress] = []
    start = rich_progress.Progress.__enter__
    monkeypatch.setattr(rich_progress.Progress, "__enter__", lambda bar: bars.append(bar) or start(bar))
    with shown() as progress:
        progress("pictures", 0, 2)
        for done in (0, 1, 2):
            progress("[/a].png", done, 2)
        progress("b.png", 1, 3)
        assert [(task.description, task.completed, task.total) for task in bars[0].tasks] == [
            ("pictures", 0, 2),
            ("b.png", 1, 3),
        ]


def test_pixels_are_those_on_disk(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    restore(plan([tmp_path / "a.png"], tmp_path / "out"))
    told = restore(plan([tmp_path / "a.png"], tmp_path / "out", skip_existing=True), targets=tmp_path / "a.png")
    assert told[1][0].startswith("    psnr inf -> inf; ssim 1 -> 1")
