from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from prunekit.errors import CheckpointError, Failed, RunError
from prunekit.files import (
    read_json,
    read_tensors,
    read_tree,
    write_atomic,
    write_json,
    write_tensors,
    write_text,
    write_tree,
)


def test_a_tree_comes_back_with_types_bits_and_layout(tmp_path: Path) -> None:
    image = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    tree = {"a": (1, 2.5, None), 3: [True, "x"], "image": image, "half": torch.tensor([1.0, float("nan")]).half()}
    write_tree(tmp_path / "t", tree)
    back = read_tree(tmp_path / "t")
    assert back["a"] == (1, 2.5, None)
    assert back[3] == [True, "x"]
    assert torch.equal(back["image"], image)
    assert back["image"].stride() == image.stride()
    assert back["half"].dtype == torch.float16
    assert back["half"].isnan().tolist() == [False, True]


def test_tensors_that_share_memory_are_stored_apart(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    write_tensors(tmp_path / "t", {"whole": whole, "again": whole, "part": whole[2:4]})
    back = read_tensors(tmp_path / "t")
    assert back["again"].tolist() == [0, 1, 2, 3, 4, 5]
    assert back["part"].tolist() == [2, 3]


@settings(max_examples=30, deadline=None)
@given(st.floats(allow_nan=False))
def test_every_number_survives(tmp_path_factory: pytest.TempPathFactory, number: float) -> None:
    path = tmp_path_factory.mktemp("n") / "t"
    write_tree(path, {"n": number})
    assert read_tree(path) == {"n": number}


def test_what_cannot_be_saved_is_named() -> None:
    with pytest.raises(TypeError, match=r"\$\.state\.0: a set cannot be saved"):
        write_tree(Path("never"), {"state": [{1}]})


@pytest.mark.parametrize("keep", [0, 5, 60])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "t.safetensors"
    write_tree(path, {"w": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"t\.safetensors is missing, truncated or altered"):
        read_tree(path)
    with pytest.raises(CheckpointError, match=r"t\.safetensors is missing, truncated or altered"):
        read_tensors(path)


def test_a_strangers_safetensors_file_is_no_tree(tmp_path: Path) -> None:
    write_tensors(tmp_path / "t", {"w": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="not written by prunekit"):
        read_tree(tmp_path / "t")
    assert torch.equal(read_tensors(tmp_path / "t")["w"], torch.zeros(2))


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "note"
    write_text(path, "old")

    def full(temporary: Path) -> None:
        temporary.write_text("half of the n")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(Failed, match="writing .*note failed: the disk is full") as failure:
        write_atomic(path, full)
    assert failure.value.exit_code == 1
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["note"]


def test_a_full_disk_is_named_when_tensors_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("prunekit.files.save_file", full)
    with pytest.raises(Failed, match="No space left on device.*Free some space; the same command then continues"):
        write_tree(tmp_path / "t", {"w": torch.zeros(2)})


def test_damaged_json_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "j", {"b": 1, "a": [2]})
    assert read_json(tmp_path / "j") == {"a": [2], "b": 1}
    (tmp_path / "j").write_text('{"a": ')
    with pytest.raises(RunError, match="j is missing or damaged"):
        read_json(tmp_path / "j")


def test_files_are_for_whom_the_user_lets_read_them(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_tensors(tmp_path / "t.safetensors", {"w": torch.ones(2)})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "t.safetensors").stat().st_mode) == 0o640
