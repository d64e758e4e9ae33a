"""A folder of images as calibration data."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from prunekit.errors import DataError, PruneKitError
from prunekit.folder import folder_data
from prunekit.imaging import ImageCall

GREY, RGB = ImageCall(channels=1), ImageCall(channels=3)


def write(path: Path, value: int | tuple[int, int, int], size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(value, int) else "RGB", size, value).save(path)


def inputs(folder: Path, call: ImageCall, noise: float | None = None) -> list[Tensor]:
    return list(folder_data(folder, call, noise=noise).inputs(nn.Identity()))


def test_images_come_in_order_of_their_names_as_grey_or_rgb(tmp_path: Path) -> None:
    write(tmp_path / "b.png", (255, 0, 0))
    write(tmp_path / "a.png", 51)
    (tmp_path / ".DS_Store").write_text("left about")
    first, second = inputs(tmp_path, RGB)
    assert first.shape == second.shape == (1, 3, 4, 6)
    assert first.unique().tolist() == [pytest.approx(0.2)]
    assert second.amax(dim=(0, 2, 3)).tolist() == [1, 0, 0]
    assert inputs(tmp_path, GREY)[1].unique().tolist() == [pytest.approx(76 / 255)]  # BT.601: 0.299 of red


def test_the_centre_is_taken(tmp_path: Path) -> None:
    pixels = np.zeros((9, 5), np.uint8)
    pixels[3:6, 1:4] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (centre,) = folder_data(tmp_path, GREY, crop=3).inputs(nn.Identity())
    assert torch.equal(centre, torch.ones(1, 1, 3, 3))
    (whole,) = inputs(tmp_path, GREY)
    assert whole.shape == (1, 1, 9, 5)


def test_so_many_are_read_and_no_more(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.png", 9)
    (tmp_path / "d.txt").write_text("no image, and never opened")
    assert len(list(folder_data(tmp_path, GREY, images=2).inputs(nn.Identity()))) == 2
    with pytest.raises(DataError, match=r"d\.txt is no image that can be read .*: take it out of the folder"):
        folder_data(tmp_path, GREY)


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0x80FF, np.uint16)).save(tmp_path / "a.png")
    assert inputs(tmp_path, GREY)[0].unique().tolist() == [pytest.approx(128 / 255)]


def test_pairs_go_together_in_sorted_order(tmp_path: Path) -> None:
    for value, name in ((0, "1"), (51, "2")):
        write(tmp_path / "input" / f"{name}_rainy.png", value)
        write(tmp_path / "target" / f"{name}_gt.png", value + 51)
    data = folder_data(tmp_path, GREY)
    assert [float(loss) for loss in data.losses(nn.Identity())] == pytest.approx([0.04, 0.04])


def test_noise_is_a_function_of_name_and_sigma(tmp_path: Path) -> None:
    for name in ("a", "b", "other/a"):
        write(tmp_path / f"{name}.png", 100, (64, 64))
    (a, b), (again,) = inputs(tmp_path, GREY, 25), inputs(tmp_path / "other", GREY, 25)
    assert torch.equal(a, again)
    assert not torch.equal(a, b)
    assert not torch.equal((inputs(tmp_path, GREY, 50)[0] - 100 / 255) / 2, a - 100 / 255)
    assert float(a.std()) == pytest.approx(25 / 255, rel=0.05)
    losses = [float(loss) for loss in folder_data(tmp_path, GREY, noise=25).losses(nn.Identity())]
    assert losses == pytest.approx([(25 / 255) ** 2] * 2, rel=0.1)


def test_a_noise_level_map_is_told_the_noise(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 0)
    seen = next(iter(folder_data(tmp_path, ImageCall(1, extra=1), noise=51).inputs(nn.Conv2d(2, 1, 1))))
    assert seen.shape == (1, 2, 4, 6)
    assert seen[:, 1].unique().tolist() == [pytest.approx(0.2)]


@pytest.mark.parametrize(
    ("files", "noise", "message"),
    [
        ((), None, "holds no image"),
        (("input/a.png",), None, r"one half of its pairs only: .*target is missing"),
        (("input/a.png", "input/b.png", "target/a.png"), None, "2 files in input/ and 1 in target/ cannot be paired"),
        (("input/a.png", "target/a.png"), 25, "has targets of its own: leave the noise out"),
        (("a.png",), 0, "noise must be above 0 and at most 255, not 0"),
    ],
)
def test_folders_that_cannot_be_used_say_why(
    files: tuple[str, ...], noise: float | None, message: str, tmp_path: Path
) -> None:
    for name in files:
        write(tmp_path / name, 9)
    with pytest.raises(DataError, match=message):
        folder_data(tmp_path, GREY, noise=noise)


def test_pairs_of_two_sizes_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "input" / "a.png", 9, (300, 200))
    write(tmp_path / "target" / "a.png", 9, (300, 210))
    with pytest.raises(DataError, match=r"a\.png are no pair: they have 300 x 200 and 300 x 210 pixels"):
        folder_data(tmp_path, GREY)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not there: name a folder of images"):
        folder_data(tmp_path / "nowhere", GREY)
    write(tmp_path / "a.png", 9)
    with pytest.raises(DataError, match=r"a\.png is a file, not a folder"):
        folder_data(tmp_path / "a.png", GREY)
    with pytest.raises(DataError, match="images must be at least 1, not 0"):
        folder_data(tmp_path, GREY, images=0)


def test_without_pillow_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.png", 9)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(PruneKitError, match=r'pip install "prunekit\[images\]"'):
        folder_data(tmp_path, GREY)
