"""The task and its verbs with networks that are not PromptIR: of other colours, sizes and outputs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import prunekit as pk
from prunekit.cli import main
from prunekit.errors import RecipeError
from prunekit.measure import count_macs
from prunekit.network import bind_network
from prunekit_mir_l.metrics import GREY_PROTOCOL
from prunekit_mir_l.restoration import MirL
from prunekit_mir_l.task import mir_l

GREY = {"name": "spandrel:DnCNN", "nc": 4, "nb": 3}
SMALL: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "NAFNet": ({"width": 4, "enc_blk_nums": [1], "dec_blk_nums": [1]}, (1, 3, 128, 128)),
    "DnCNN": ({"nc": 4, "nb": 3}, (1, 1, 128, 128)),
    "FDnCNN": (
        {"name": "spandrel:DnCNN", "nc": 4, "nb": 3, "in_nc": 4, "out_nc": 3, "mode": "FDnCNN"},
        (1, 4, 128, 128),
    ),
    "SwinIR": (
        {"img_size": 16, "embed_dim": 8, "depths": [2], "num_heads": [2], "window_size": 8},
        (1, 3, 128, 128),
    ),
    "DRUNet": ({"in_nc": 2, "out_nc": 1, "nc": [4, 4, 4, 4], "nb": 1}, (1, 2, 128, 128)),
    "FBCNN": ({"nc": [4, 4, 4, 512], "nb": 1}, (1, 3, 128, 128)),
    "SCUNet": ({"config": [1] * 7}, (1, 3, 128, 128)),
}


def task(**options: Any) -> MirL:
    return mir_l(
        **{"steps": 2, "batch": 1, "patch": 16, "test_crop": 32, "tasks": ["denoise"], "sigmas": [25]} | options
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'saved_variables' is deprecated:DeprecationWarning")  # of NAFNet's own code
@pytest.mark.parametrize("name", SMALL)
def test_restoration_networks_train_and_are_measured(name: str) -> None:
    options, shape = SMALL[name]
    built = task(network={"name": f"spandrel:{name}", **options})
    model = built.model()
    built.loss(model, next(built.batches(0))).backward()
    assert next(iter(model.parameters())).grad is not None
    example = built.example()
    assert tuple(example.shape) == shape
    assert count_macs(model, example).dense > 0
    model.eval()
    of_colour = {"psnr_y", "ssim_y"} if built.call.channels == 3 else set()
    assert {measure.metric for measure in built.evaluate(model)} == {"psnr", "ssim"} | of_colour
    (sample,) = built.samples(model)
    assert {tuple(image.shape) for image in sample.images.values()} == {(192, 192, 3)}


class Same(nn.Module):
    """Gives back what it gets, once multiplied by a weight; takes images of any colour."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_grey_measures_say_so_and_are_of_grey_images() -> None:
    built, coloured = task(network=Same, color="grey"), task(network=Same)
    given, target = next(built.batches(0))
    assert given.shape == target.shape == (1, 1, 16, 16)
    measures = built.evaluate(built.model())
    assert {measure.protocol for measure in measures} == {f"{GREY_PROTOCOL}; centre of at most 32 px"}
    assert GREY_PROTOCOL == "grey (BT.601 luma, 8 bits), float, clipped to [0, 1], per image; SSIM uniform 7x7"
    noisy = [m.value for m in measures if m.metric == "psnr"]
    assert np.mean(noisy) == pytest.approx(20.5, abs=1)  # the noise of sigma 25 is as strong as in colour
    assert built.example().shape == (1, 1, 128, 128) and coloured.example().shape == (1, 3, 128, 128)
    (sample,) = built.samples(built.model())
    assert torch.equal(sample.images["target"][:, :, 0], sample.images["target"][:, :, 2])


def classifier() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"color": "gray"}, "color 'gray' is unknown: did you mean 'grey'"),
        (
            {"network": GREY, "color": "rgb"},
            "'spandrel:DnCNN' cannot be trained .* DnCNN takes no images of 3 channels",
        ),
        ({"network": "promptir_tiny", "color": "grey"}, "'promptir_tiny' cannot be trained .* no images of 1 channels"),
        (
            {"network": "python:test_other_networks:classifier"},
            r"task.network 'python:test_other_networks:classifier' cannot be trained to restore images: Sequential .* "
            r"it makes a tensor of shape \(1, 10\)",
        ),
        (
            {"network": "spandrel:DRUNet", "patch": 20},
            "patch is 20: it must be a positive multiple of 8 for this network",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_when_it_is_bound(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        task(**options)


def call(patch: pytest.MonkeyPatch, *arguments: str) -> int:
    patch.setattr("sys.argv", ["prunekit", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    return int(done.value.code or 0)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file as restoration repositories publish them."""
    path = tmp_path_factory.mktemp("weights") / "dncnn.pth"
    torch.save({"params": bind_network({**GREY, "nb": 9})().state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def run(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole recipe on that file, with no other override than what makes it short."""
    out = tmp_path_factory.mktemp("other") / "run"
    short = ("task.steps=2", "task.warmup=0", "task.batch=1", "task.test_crop=32", "strategy.rounds=1")
    with pytest.MonkeyPatch.context() as patch:
        network = f"task.network=spandrel:{published}"
        assert call(patch, "run", "mir_l", network, *short, "--out", str(out), "--device", "cpu", "--quiet") == 0
    return out


@pytest.mark.slow
def test_a_run_of_a_weights_file_notes_it_with_its_options_and_a_ticket_these_alone(run: Path, published: Path) -> None:
    recipe = (run / "recipe.yaml").read_text()
    assert "spandrel:DnCNN" in recipe and str(published) in recipe
    assert pk.load(run).about.network == {**GREY, "nb": 9, "in_nc": 1, "out_nc": 1, "act_mode": "BR", "mode": "DnCNN"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.png", "b.jpg"])
def test_its_ticket_restores_images_in_grey_without_the_weights_file(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
    ticket = tmp_path / "ticket.safetensors"
    assert call(monkeypatch, "export", str(run), "-o", str(ticket)) == 0
    assert call(monkeypatch, "inspect", str(ticket)) == 0
    for out, more in (("plain", []), ("fast", ["--fast"])):
        arguments = [str(ticket), str(tmp_path / name), "-o", str(tmp_path / out), *more]
        assert call(monkeypatch, "mir_l", "restore", *arguments) == 0
    with Image.open(tmp_path / "plain" / name) as plain, Image.open(tmp_path / "fast" / name) as fast:
        assert plain.mode == fast.mode == "L" and plain.size == (13, 9)
        assert np.abs(np.asarray(plain, dtype=int) - np.asarray(fast)).max() <= 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.network=spandrel:NAFNt", "did you mean 'NAFNet'"),
        ("task.network={name: spandrel:NAFNet, widht: 8}", "task.network has no option 'widht': did you mean 'width'"),
        ("task.network=spandrel:SPAN", "task.network.num_in_ch is missing"),
        ("task.network=timm:resnet10t", "task.network 'timm:resnet10t' cannot be trained to restore images: ResNet"),
        ("task.network=spandrel:nowhere.pth", "nowhere.pth: there is no such file"),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_mistakes_are_found_before_anything_is_trained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    override: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, verb, "mir_l", override) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_weights_of_another_network_are_named_by_their_keys(
    published: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "plan", "mir_l", "task.network=spandrel:NAFNet", f"weights={published}") == 2
    assert "dncnn.pth does not fit this network" in (error := capsys.readouterr().err)
    assert "missing: intro.weight" in error and "unexpected: model.0.weight" in error


@pytest.mark.slow
@pytest.mark.skipif("PRUNEKIT_TEST_DATA" not in os.environ, reason="PRUNEKIT_TEST_DATA names no folder of images")
def test_a_published_denoiser_denoises_as_published() -> None:
    data = Path(os.environ["PRUNEKIT_TEST_DATA"])
    network = f"spandrel:{data / 'weights' / 'dncnn_gray_sigma25.pth'}"
    built = task(data=str(data), network=network, patch=64, test_crop=None)
    with torch.no_grad():
        measures = built.evaluate(built.model().eval())
    found = [m.value for m in measures if (m.dataset, m.metric) == ("BSD68", "psnr")]
    assert len(found) == 24
    assert np.mean(found) == pytest.approx(29.2, abs=0.3)  # 29.23 dB on grey BSD68 is known of these weights
