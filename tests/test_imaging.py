"""How an image network wants to be called."""

from __future__ import annotations

import random
from typing import Any

import pytest
import spandrel.architectures as known
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunekit.errors import DataError, RecipeError
from prunekit.imaging import ImageCall, image_call


class Recorder(nn.Module):
    """Add one, and remember the shapes seen."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(1, dtype=torch.float64))
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        return x + self.one


@pytest.mark.parametrize(("height", "width"), [(16, 24), (9, 23), (8, 1), (1, 1), (2, 3), (5, 7)])
def test_any_size_is_padded_and_cropped_back(height: int, width: int) -> None:
    model, image = Recorder(), torch.rand(2, 3, height, width)
    assert torch.equal(ImageCall(3, multiple=8)(model, image), image.double() + 1)
    assert model.shapes == [(2, 3, -(-height // 8) * 8, -(-width // 8) * 8)]


@pytest.mark.parametrize(("height", "width"), [(9, 23), (8, 12), (13, 15)])
def test_padding_equals_torchs_reflection_on_the_right_and_bottom(height: int, width: int) -> None:
    image = torch.rand(1, 3, height, width)
    given = ImageCall(3, multiple=8).input(nn.Identity(), image)
    assert torch.equal(given, functional.pad(image, (0, -width % 8, 0, -height % 8), mode="reflect"))


def test_padding_goes_there_and_back_where_the_image_is_too_small_for_torch() -> None:
    row = torch.tensor([0.0, 1.0, 2.0]).expand(1, 1, 8, 3)
    assert ImageCall(1, multiple=8).input(nn.Identity(), row)[0, 0, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]


@pytest.mark.parametrize(
    ("call", "height", "width"),
    [
        (ImageCall(1, minimum=6), 6, 9),
        (ImageCall(1, multiple=4, minimum=8), 8, 12),
        (ImageCall(1, multiple=4, square=True), 12, 12),
    ],
)
def test_images_become_as_large_as_the_network_wants(call: ImageCall, height: int, width: int) -> None:
    assert call.input(nn.Identity(), torch.rand(1, 1, 5, 9)).shape == (1, 1, height, width)
    image = torch.rand(1, 1, 5, 9)
    assert torch.equal(call(nn.Identity(), image), image)


def test_constant_channels_come_last_and_the_image_is_unpacked() -> None:
    given = ImageCall(1, extra=2, level=0.25).input(nn.Identity(), torch.ones(2, 1, 2, 2))
    assert given[1, :, 0, 0].tolist() == [1, 0.25, 0.25]

    class Pair(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [x.mean(), x[:, :1] * 2]

    assert ImageCall(1, extra=2, output=1)(Pair(), torch.ones(2, 1, 2, 2)).eq(2).all()


def test_an_image_of_other_channels_is_refused() -> None:
    with pytest.raises(DataError, match="the images have 3 channels, and the network restores 1"):
        ImageCall(1)(nn.Identity(), torch.rand(1, 3, 4, 4))


def dncnn(**options: Any) -> nn.Module:
    return known.DnCNN.DnCNN(**{"nc": 4, "nb": 3} | options)


def drunet(**options: Any) -> nn.Module:
    return known.DRUNet.DRUNet(**{"nc": [4, 4, 4, 4], "nb": 1} | options)


def swinir(window: int) -> nn.Module:
    return known.SwinIR.SwinIR(
        img_size=4 * window, embed_dim=8, depths=[2], num_heads=[2], window_size=window, mlp_ratio=2
    )


SPANDREL = {
    "NAFNet": (lambda: known.NAFNet.NAFNet(width=4), ImageCall(3)),
    "NAFNet, deeper": (lambda: known.NAFNet.NAFNet(width=4, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]), ImageCall(3)),
    "SwinIR, window 8": (lambda: swinir(8), ImageCall(3, minimum=6)),
    "SCUNet": (lambda: known.SCUNet.SCUNet(config=[1] * 7, dim=64), ImageCall(3, minimum=48)),
    "DnCNN": (dncnn, ImageCall(1)),
    "DnCNN, colour": (lambda: dncnn(in_nc=3, out_nc=3, act_mode="R"), ImageCall(3)),
    "FDnCNN": (lambda: dncnn(in_nc=2, mode="FDnCNN"), ImageCall(1, extra=1)),
    "FDnCNN, colour": (lambda: dncnn(in_nc=4, out_nc=3, mode="FDnCNN"), ImageCall(3, extra=1)),
    "DRUNet": (drunet, ImageCall(1, multiple=8, minimum=8)),
    "DRUNet, colour": (lambda: drunet(in_nc=4, out_nc=3), ImageCall(3, extra=1, multiple=8, minimum=8)),
    "FBCNN": (lambda: known.FBCNN.FBCNN(nc=[4, 4, 4, 512], nb=1), ImageCall(3, output=0)),
    "Uformer": (
        lambda: known.Uformer.Uformer(embed_dim=4, depths=[1] * 9, num_heads=[1] * 9),
        ImageCall(3, multiple=128, minimum=128, square=True),
    ),
}


@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")  # of SwinIR's own code
@pytest.mark.parametrize("name", SPANDREL)
def test_published_networks_are_called_as_they_want(name: str) -> None:
    build, expected = SPANDREL[name]
    model = build()
    assert image_call(model) == expected
    image = torch.rand(2, expected.channels, 50, 67)
    with torch.no_grad():
        assert expected(model.eval(), image).shape == image.shape


class Halving(nn.Module):
    """Loses what does not divide by four."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(functional.avg_pool2d(x, 4), scale_factor=4)


def test_a_size_that_is_rounded_is_padded() -> None:
    assert image_call(Halving()) == ImageCall(3, multiple=4, minimum=4)


def test_the_channels_can_be_said() -> None:
    assert image_call(nn.Identity()) == ImageCall(3)
    assert image_call(nn.Identity(), channels=1) == ImageCall(1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10)),
            r"Sequential does not turn images into images of the same size: of a tensor of shape \(1, 3, 1, 3\) it "
            r"makes a tensor of shape \(1, 10\)",
        ),
        (nn.Upsample(scale_factor=2), r"it makes a tensor of shape \(1, 3, 2, 6\)"),
        (nn.Conv2d(3, 4, 3, padding=1), r"it makes a tensor of shape \(1, 4, 1, 3\)"),
        (nn.Conv2d(3, 3, 3), r"of each size tried it makes another, in the end a tensor of shape \(1, 3, 126, 382\)"),
        (nn.Conv2d(5, 5, 3), "Conv2d takes no images of 3 or 1 channels, .* up to 128 x 384 pixels .*RuntimeError"),
        (nn.Embedding(3, 3), "Embedding takes no images of 3 or 1 channels"),
    ],
)
def test_what_makes_no_images_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        image_call(model)


class Untidy(nn.Module):
    """Counts its calls in a buffer, replaces another, and draws random numbers, in whatever mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Dropout())
        self.calls: Tensor
        self.last: Tensor
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x.mean() + torch.rand(()) + random.random()
        out: Tensor = self.body(x)
        return out


def test_trying_changes_nothing() -> None:
    model = Untidy().train()
    model.body[1].eval()
    model.body[0].weight.grad = torch.ones(3, 3, 3, 3)
    before = {name: tensor.clone() for name, tensor in model.named_buffers()}
    modes = [module.training for module in model.modules()]
    held, states = model.last, (torch.get_rng_state(), random.getstate())
    assert image_call(model) == ImageCall(3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_buffers())
    assert model.last is held
    assert [module.training for module in model.modules()] == modes
    assert model.body[0].weight.grad.eq(1).all()
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
