from __future__ import annotations

import pytest
import torch
from torch import nn

from prunekit.calibration import Calibration
from prunekit.errors import SelectionError
from prunekit.masks import Masks, hold
from prunekit.pruner import prune
from prunekit.tracking import movement, track


def line(*weights: float) -> nn.Linear:
    model = nn.Linear(len(weights), 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([weights]))
    return model


def test_sums_over_steps_by_hand_and_goes_on_from_sums() -> None:
    model = line(3.0, -2.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def step() -> None:  # the gradient is always (1, 1)
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()

    with track(model) as moved:
        step()
        step()
    assert moved["weight"].tolist() == [[-3 - 2, 2 + 3]]  # -g w at weights (3, -2), then (2, -3)
    with track(model, moved) as more:
        step()
    assert more["weight"].tolist() == [[-6, 9]] and moved["weight"].tolist() == [[-5, 5]]
    step()
    assert more["weight"].tolist() == [[-6, 9]]  # nothing is gathered outside
    assert prune(model, Masks.dense(model), 0.5, scorer=movement(), data=Calibration(movement=more))[
        "weight"
    ].tolist() == [[False, True]]


def test_accumulated_gradients_other_optimisers_and_wrappers_count_once() -> None:
    model, other = line(1.0), line(1.0)
    inner = torch.optim.SGD(model.parameters(), lr=0.0)

    class Wrapper(torch.optim.Optimizer):
        def __init__(self) -> None:
            super().__init__(model.parameters(), {})

        def step(self, closure: None = None) -> None:
            inner.step()

    wrapper, foreign = Wrapper(), torch.optim.SGD(other.parameters(), lr=0.0)
    with track(model) as moved:
        for _ in range(2):
            model(torch.ones(1, 1)).sum().backward()  # two passes, one step
        foreign.step()
        wrapper.step()
    assert moved["weight"].item() == -2.0


@pytest.mark.parametrize("fused", [False, True])  # a fused one is handed scaled gradients
def test_scaled_gradients_count_unscaled_and_skipped_steps_not_at_all(fused: bool) -> None:
    model = line(3.0, -2.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with track(model) as moved:
        for factor in (1.0, float("inf")):
            optimizer.zero_grad()
            scaler.scale(model(torch.ones(1, 2)).sum() * factor).backward()
            scaler.step(optimizer)
            scaler.update()
    assert moved["weight"].tolist() == [[-3.0, 2.0]] and model.weight.tolist() == [[2.0, -3.0]]


def test_small_steps_add_up_in_bfloat16_and_a_failed_step_stops_nothing() -> None:
    model = line(1.0).to(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def fails() -> float:
        raise ZeroDivisionError

    with track(model) as moved:
        with pytest.raises(ZeroDivisionError):
            optimizer.step(fails)
        model(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        for _ in range(300):
            optimizer.step()
    assert moved["weight"].item() == -300.0  # bfloat16 would stand still at 256


def test_cut_weights_stand_still() -> None:
    model = line(3.0, -2.0)
    with hold(model, Masks({"weight": torch.tensor([[True, False]])})), track(model) as moved:
        model(torch.ones(1, 2)).sum().backward()
        torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert moved["weight"].tolist() == [[-3.0, 0.0]]


def test_without_tracking_it_says_what_to_do() -> None:
    with pytest.raises(SelectionError, match=r"with prunekit.track\(model\) as moved"):
        prune(line(1.0), Masks.dense(line(1.0)), 0.5, scorer=movement())
