"""The whole path on a very short run: run, restore, check, and the mistakes on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

import prunekit as pk
from prunekit import native
from prunekit.cli import main
from prunekit.files import read_json
from prunekit_mir_l.codecs import versions

SHORT = ("task.steps=2", "task.warmup=0", "task.patch=16", "task.batch=2", "task.test_crop=32", "strategy.rounds=1")


def call(patch: pytest.MonkeyPatch, *arguments: str) -> int:
    patch.setattr("sys.argv", ["prunekit", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    return int(done.value.code or 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mir_l") / "run"
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, "run", "mir_l", *SHORT, "--out", str(out), "--device", "cpu", "--quiet") == 0
    return out


def picture(path: Path, mode: str, size: tuple[int, int]) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def test_the_run_keeps_a_tenth_of_all_parameters_and_measures_every_task(run: Path) -> None:
    (last,) = run.glob("01-*")
    facts = read_json(last / "done" / "stage.json")
    assert facts["remaining"] == round(0.1 * facts["total"])
    measures = read_json(last / "done" / "metrics.json")
    assert {measure["task"] for measure in measures} == {"dehaze", "denoise_15", "denoise_25", "denoise_50", "derain"}
    assert {measure["metric"] for measure in measures} == {"psnr", "ssim", "psnr_y", "ssim_y"}
    assert measures[0]["metric"] == "psnr"  # the headline, as the task has them
    assert all(measure["protocol"] and measure["baseline"] for measure in measures)
    assert facts["unused"] == []
    assert (run / "report" / "samples.png").exists()


@pytest.mark.parametrize(
    ("name", "mode", "size"),
    [
        ("a.png", "RGB", (13, 9)),
        ("b.jpg", "L", (8, 8)),
        ("c.jpg", "CMYK", (17, 5)),
        ("d.png", "P", (1, 1)),
        ("e.bmp", "RGB", (9, 20)),
    ],
)
def test_any_image_is_restored_under_its_name_at_its_size(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mode: str, size: tuple[int, int]
) -> None:
    source = picture(tmp_path / name, mode, size)
    before = source.read_bytes()
    assert call(monkeypatch, "mir_l", "restore", str(run), str(source), "-o", str(tmp_path / "out")) == 0
    with Image.open(tmp_path / "out" / name) as restored:
        assert restored.size == size
        assert restored.mode == "RGB"
    assert source.read_bytes() == before


@pytest.mark.slow
def test_an_exported_file_restores_as_its_run_does_without_the_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, file = picture(tmp_path / "a.png", "RGB", (21, 13)), tmp_path / "ticket.safetensors"
    assert call(monkeypatch, "export", str(run), "-o", str(file)) == 0
    printed = capsys.readouterr().out
    assert "61,699 of all 616,986 parameters (10.00%)" in printed
    assert file.stat().st_size < 0.25 * 4 * 616_986
    assert call(monkeypatch, "mir_l", "restore", str(run), str(source), "-o", str(tmp_path / "of_run")) == 0
    assert call(monkeypatch, "mir_l", "restore", str(file), str(source), "-o", str(tmp_path / "of_file")) == 0
    assert (tmp_path / "of_run" / "a.png").read_bytes() == (tmp_path / "of_file" / "a.png").read_bytes()
    assert call(monkeypatch, "mir_l", "restore", str(file), str(source), "-o", str(tmp_path / "fast"), "--fast") == 0
    with Image.open(tmp_path / "fast" / "a.png") as fast, Image.open(tmp_path / "of_run" / "a.png") as slow:
        assert np.abs(np.asarray(fast, dtype=int) - np.asarray(slow)).max() <= 1
    about = pk.load(file).about
    assert about.network is not None
    assert (about.network["name"], about.network["width"]) == ("promptir_tiny", 12)
    assert {mean.metric for mean in about.measures} == {"psnr", "ssim", "psnr_y", "ssim_y"}
    assert all(mean.protocol for mean in about.measures)


def test_fast_without_kernels_says_so_in_a_line_and_restores(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native, "_found", lambda: native.NOT_BUILT)
    images = [str(picture(tmp_path / name, "RGB", (8, 8))) for name in ("a.png", "b.png")]
    assert call(monkeypatch, "mir_l", "restore", str(run), *images, "-o", str(tmp_path / "out"), "--fast") == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("--fast found no compiled kernels, and every layer stays dense: they were not built")
    assert (tmp_path / "out" / "b.png").is_file()


def test_a_network_that_restores_no_images_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = picture(tmp_path / "a.png", "RGB", (8, 8))
    pk.save(model := nn.Linear(3, 2), pk.Masks.dense(model), tmp_path / "t")
    spec = "python:test_mir_l_cli:classifier"
    arguments = ("mir_l", "restore", str(tmp_path / "t"), str(source), "-o", str(tmp_path / "out"), "--network", spec)
    assert call(monkeypatch, *arguments) == 2
    assert "t holds a network that restores no images: Linear" in capsys.readouterr().err


def test_a_network_that_nobody_trained_restores_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = picture(tmp_path / "a.png", "RGB", (8, 8))
    assert call(monkeypatch, "mir_l", "restore", "promptir_tiny", str(source), "-o", str(tmp_path / "out")) == 2
    assert "promptir_tiny is the name of a network that nobody trained" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def classifier() -> nn.Module:
    return nn.Linear(3, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("RUN", "IMAGE", "-o", "HERE"), "exists already and is left as it is"),
        (("RUN", "IMAGE", "IMAGE", "-o", "OUT"), "two images are called"),
        (("RUN", "nowhere.png", "-o", "OUT"), "nowhere.png: no such file"),
        (("HERE", "IMAGE", "-o", "OUT"), "is missing or damaged"),
        (("RUN", "IMAGE", "-o", "OUT", "--stage", "07"), "no finished stage '07'"),
        (("RUN", "BROKEN", "-o", "OUT"), "broken.png: cannot be read"),
    ],
)
def test_mistakes_of_restore(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    places = {
        "RUN": run,
        "IMAGE": picture(tmp_path / "a.png", "RGB", (8, 8)),
        "HERE": tmp_path,
        "OUT": tmp_path / "out",
    }
    places["BROKEN"] = tmp_path / "broken.png"
    places["BROKEN"].write_bytes(places["IMAGE"].read_bytes()[:60])
    assert call(monkeypatch, "mir_l", "restore", *(str(places.get(word, word)) for word in arguments)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.data=nowhere", "nowhere"),
        ("task.network=promptir_tin", "did you mean 'promptir_tiny'"),
        ("task.tasks=[denois]", "did you mean 'denoise'"),
        ("task.patch=0", "patch"),
        ("strategy.schedule.density=0.0001", "cannot keep 0.01% of all"),
        ("task.batch=big", "got 'big'"),
    ],
)
def test_mistakes_in_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "run", "mir_l", override) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_check_counts_and_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "train" / "denoise" / "BSD400"
    folder.mkdir(parents=True)
    picture(folder / "whole.png", "RGB", (80, 80))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert call(monkeypatch, "mir_l", "data", "check", str(tmp_path)) == 2
    printed = capsys.readouterr().out
    assert "broken.jpg" in printed
    assert "400" in printed
    (folder / "broken.jpg").unlink()
    assert call(monkeypatch, "mir_l", "data", "check", str(tmp_path)) == 0


def test_a_list_of_an_editor_that_marks_its_encoding_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "WED").mkdir()
    picture(tmp_path / "WED" / "a.png", "RGB", (80, 80))
    (tmp_path / "names.txt").write_bytes(b"\xef\xbb\xbfa.png\r\n")
    arguments = ("prepare", str(tmp_path / "WED"), "-o", str(tmp_path / "out"), "--list", str(tmp_path / "names.txt"))
    assert call(monkeypatch, "mir_l", "data", *arguments) == 0
    assert "taken for clean; 1 files linked, 0 there already" in capsys.readouterr().out
    (tmp_path / "names.txt").write_text("b.png")
    assert call(monkeypatch, "mir_l", "data", *arguments) == 2
    assert "1 names of the list that are not there: b.png" in capsys.readouterr().out


def test_web_v1_is_verified_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if "avif" not in versions():
        pytest.skip("this Pillow has no AVIF")
    home = tmp_path / "test" / "denoise" / "Mine"
    home.mkdir(parents=True)
    picture(home / "mine.png", "RGB", (20, 18))
    assert call(monkeypatch, "mir_l", "data", "web-v1", str(tmp_path), "-o", str(tmp_path)) == 0
    told = capfd.readouterr().out
    assert told.startswith("encoders: pillow ") and "mine.png: not in the manifest" in told
    assert len(list((tmp_path / "test" / "web" / "web-v1-Mine" / "input").iterdir())) == 8
    assert call(monkeypatch, "mir_l", "data", "web-v1", str(tmp_path), "-o", str(tmp_path)) == 2
    assert "is there already" in capfd.readouterr().err
    picture(home / "chelsea.png", "RGB", (20, 18))
    assert call(monkeypatch, "mir_l", "data", "web-v1", str(tmp_path)) == 2
    said = capfd.readouterr()
    assert "chelsea.png: its own pixels are not those of the manifest" in said.out
    assert "cannot be compared" in said.err
