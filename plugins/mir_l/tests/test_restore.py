"""Images of any size through a network that needs multiples of 8."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunekit_mir_l.restore import reflect, restore_image


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
    restored = restore_image(model, image)
    assert torch.equal(restored, image.double() + 1)
    assert model.shapes == [(2, 3, -(-height // 8) * 8, -(-width // 8) * 8)]


@pytest.mark.parametrize(("height", "width"), [(9, 23), (8, 12), (13, 15)])
def test_padding_equals_torchs_reflection_on_the_right_and_bottom(height: int, width: int) -> None:
    image = torch.rand(1, 3, height, width)
    assert torch.equal(reflect(image), functional.pad(image, (0, -width % 8, 0, -height % 8), mode="reflect"))


def test_padding_goes_there_and_back_where_the_image_is_too_small_for_torch() -> None:
    row = torch.tensor([0.0, 1.0, 2.0]).expand(1, 1, 8, 3)
    assert reflect(row)[0, 0, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]


def test_a_network_without_parameters_works_too() -> None:
    image = torch.rand(1, 3, 5, 5)
    assert torch.equal(restore_image(nn.Identity(), image), image)
