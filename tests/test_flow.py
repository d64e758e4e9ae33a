from __future__ import annotations

import pytest
import torch
from torch import nn

from prunekit.calibration import Calibration
from prunekit.errors import SelectionError
from prunekit.flow import synflow
from prunekit.masks import Masks
from prunekit.pruner import prune
from prunekit.score import FromData


def test_by_hand_whatever_signs_data_and_norms() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.BatchNorm1d(2), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-1.0, 2.0], [0.0, -4.0]]))
        model[3].weight.copy_(torch.tensor([[5.0, -3.0]]))
        model[2].running_var.fill_(4.0 - 1e-5)  # a factor of one half
        model[2].running_mean.zero_()
    scores = synflow()(model, Calibration([torch.full((7, 2), -9.0)]))
    # Paths: |v| |w| / 2 for every input of 1. Layer 0: 5 * (1, 2) / 2, 3 * (0, 4) / 2; layer 3: (3 * 5, 4 * 3) / 2.
    torch.testing.assert_close(scores["0.weight"], torch.tensor([[2.5, 5.0], [0.0, 6.0]], dtype=torch.float64))
    torch.testing.assert_close(scores["3.weight"], torch.tensor([[7.5, 6.0]], dtype=torch.float64))
    assert model[0].weight.tolist() == [[-1.0, 2.0], [0.0, -4.0]] and model[2].running_var.dtype == torch.float32


def test_a_network_that_subtracts_what_it_finds_is_scored_like_one_that_adds_it() -> None:
    class Residual(nn.Module):
        def __init__(self, sign: float) -> None:
            super().__init__()
            self.body, self.sign = deep(width=2, depth=2), sign

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.sign * self.body(x)

    data = Calibration([torch.zeros(1, 2)])
    added, subtracted = (synflow()(Residual(sign), data) for sign in (1.0, -1.0))
    for name, score in added.items():
        assert torch.equal(score, subtracted[name]) and score.min() >= 0 and score.max() > 0


def deep(width: int = 12, depth: int = 24) -> nn.Sequential:
    torch.manual_seed(0)
    wide = [nn.Linear(width, 64), *(nn.Linear(64, 64) for _ in range(depth)), nn.Linear(64, 2)]
    return nn.Sequential(*(part for layer in wide for part in (layer, nn.ReLU())))


@pytest.mark.slow
def test_signals_beyond_float32_are_scored_and_iterating_keeps_layers_alive() -> None:
    model, data = deep(), Calibration([torch.zeros(1, 12)])
    with torch.no_grad():
        for layer in model[::2]:
            layer.weight.mul_(20)  # about 80 a layer: far beyond float32
    scores = synflow()(model, data)
    assert scores["0.weight"].max() > 3.5e38 and scores["0.weight"].isfinite().all()
    dense = Masks.dense(model)
    conserved = {name: float(score.sum()) for name, score in scores.items() if name.endswith("weight")}
    assert max(conserved.values()) / min(conserved.values()) < 3  # but for biases, the same in every layer
    after = prune(model, dense, 0.005, scorer=synflow(), data=data)
    assert after.kept == round(0.005 * dense.prunable) and not after.emptied()
    once = prune(model, dense, 0.005, scorer=synflow(times=1), data=data)
    assert once.emptied()  # the layer collapse that the iteration is there for


def test_many_cuts_put_the_weights_back() -> None:
    model = deep(depth=2)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    prune(model, Masks.dense(model), 0.1, scorer=synflow(times=4), data=Calibration([torch.zeros(1, 12)]))
    for name, each in model.state_dict().items():
        assert torch.equal(each, before[name]) and each.dtype == torch.float32


def test_float64_weights_keep_their_signs() -> None:
    model = nn.Linear(2, 1, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-3.0, 2.0]]))
    data = Calibration([torch.zeros(1, 2, dtype=torch.float64)])
    prune(model, Masks.dense(model), 0.5, scorer=synflow(times=1), data=data)
    assert model.weight.tolist() == [[-3.0, 2.0]]


def test_mistakes_are_said() -> None:
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2))
    with pytest.raises(SelectionError, match="its input must be floating-point"):
        synflow()(model, Calibration([torch.zeros(1, 2, dtype=torch.long)]))
    with pytest.raises(SelectionError, match="runs the network in float64, which failed"):
        synflow()(nn.Linear(3, 2), Calibration([torch.zeros(1, 4)]))
    huge = nn.Linear(1, 1, bias=False)
    nn.init.constant_(huge.weight, float("inf"))
    with pytest.raises(SelectionError, match="synflow's signal is inf"):
        synflow()(huge, Calibration([torch.zeros(1, 1)]))
    with pytest.raises(SelectionError, match="times must be at least 1, not 0"):
        synflow(times=0)
    assert isinstance(synflow(), FromData) and synflow().times == 100
