from __future__ import annotations

import pytest
import torch
from torch import nn

from prunekit.activations import wanda
from prunekit.calibration import Calibration
from prunekit.errors import SelectionError
from prunekit.groups import per_output
from prunekit.masks import Masks
from prunekit.pruner import prune


def test_norms_go_over_batches_rows_and_tokens() -> None:
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -1.0], [0.5, 2.0]]))
    tokens = torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])
    data = Calibration([tokens, torch.tensor([[[4.0, 0.0]]])])
    assert wanda()(model, data)["weight"].tolist() == [[5.0, 1.0], [2.5, 2.0]]  # |x| = (5, 1)
    masks = prune(model, Masks.dense(model), 0.5, scorer=wanda(), allocation=per_output(), data=data)
    assert masks["weight"].tolist() == [[True, False], [True, False]]


def scores_of_ones(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        module.weight.fill_(-1.0)
    return wanda()(nn.Sequential(module), Calibration([x]))["0.weight"]


def test_convolutions_groups_and_transposed_ones() -> None:
    x = torch.zeros(1, 4, 2, 2)
    for channel, value in enumerate((1.0, 2.0, 3.0, 4.0)):
        x[:, channel] = value  # norms 2, 4, 6, 8
    plain = scores_of_ones(nn.Conv2d(4, 3, 3, padding=1), x)
    assert plain.shape == (3, 4, 3, 3) and plain[1, :, 2, 0].tolist() == [2, 4, 6, 8]
    grouped = scores_of_ones(nn.Conv2d(4, 6, 1, groups=2), x)
    assert grouped[:, :, 0, 0].tolist() == [[2, 4]] * 3 + [[6, 8]] * 3
    depthwise = scores_of_ones(nn.Conv2d(4, 4, 1, groups=4), x)
    assert depthwise.flatten().tolist() == [2, 4, 6, 8]
    transposed = scores_of_ones(nn.ConvTranspose2d(4, 3, 2, groups=1), x)
    assert transposed.shape == (4, 3, 2, 2) and transposed[:, 2, 1, 1].tolist() == [2, 4, 6, 8]
    row = scores_of_ones(nn.Conv1d(2, 1, 1), torch.tensor([[[3.0, 4.0], [0.0, 2.0]]]))
    assert row.flatten().tolist() == [5, 2]


def test_tied_weights_of_layers_that_read_them_differently_add_up() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Conv2d(1, 2, 1, bias=False), nn.ConvTranspose2d(2, 1, 1, bias=False)
            self.up.weight = self.down.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.up(input=self.down(x))

    model = Tied()
    with torch.no_grad():
        model.down.weight.copy_(torch.tensor([1.0, -2.0]).reshape(2, 1, 1, 1))
    scores = wanda()(model, Calibration([torch.full((1, 1, 1, 1), 3.0)]))  # reads 3, then (3, -6)
    assert scores["down.weight"].flatten().tolist() == pytest.approx([(9 + 9) ** 0.5, 2 * (9 + 36) ** 0.5])


def test_dropout_is_off() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(2, 1, bias=False)).train()
    nn.init.ones_(model[1].weight)
    assert wanda()(model, Calibration([torch.tensor([[3.0, 4.0]])]))["1.weight"].tolist() == [[3.0, 4.0]]


def test_a_layer_used_twice_adds_up_and_one_never_called_has_no_score() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(1, 1, bias=False), nn.Linear(1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(self.used(x))

    model = Twice()
    with torch.no_grad():
        model.used.weight.fill_(2.0)
    data = Calibration([torch.tensor([[3.0]])])
    assert wanda()(model, data)["used.weight"].item() == pytest.approx(2 * (9 + 36) ** 0.5)
    with pytest.raises(SelectionError, match=r"gave no score for 'idle.weight'"):
        prune(model, Masks.dense(model), 0.5, scorer=wanda(), data=data)
