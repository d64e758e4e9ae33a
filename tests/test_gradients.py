"""Scores from losses, on a network small enough to work out by hand, and what they leave alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from prunekit.calibration import Calibration
from prunekit.errors import SelectionError
from prunekit.gradients import fisher, grasp, snip, taylor
from prunekit.masks import Masks
from prunekit.pruner import prune
from prunekit.score import FromData


def two_layers() -> nn.Sequential:
    """y = v * relu(w1 x1 + w2 x2) with w = (1, 2), v = 3."""
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 2.0]]))
        model[2].weight.fill_(3.0)
    return model


def squared(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]) - batch[1]).square().mean() / 2


def pairs(*rows: tuple[float, float, float]) -> list[tuple[Tensor, Tensor]]:
    """One batch a row (x1, x2, y)."""
    return [(torch.tensor([row[:2]], dtype=torch.float32), torch.tensor([[float(row[2])]])) for row in rows]


# Rows (1, 1, 6) and (2, 0, 10): hidden h = 3 and 2, output 9 and 6, error e = 3 and -4.
# Gradients: dv = e h = 9 and -8; dw = e v x = (9, 9) and (-24, 0).
DATA = Calibration(pairs((1, 1, 6), (2, 0, 10)), squared)


@pytest.mark.parametrize(
    ("scorer", "first", "last"),
    [
        (snip(), [[15.0, 18.0]], [[3.0]]),  # |w| |sum of g| = 1 * |9 - 24|, 2 * 9; 3 * |9 - 8|
        (taylor(), [[328.5, 162.0]], [[652.5]]),  # mean of (g w)^2 = (81 + 576) / 2, (324 + 0) / 2; (729 + 576) / 2
        (fisher(), [[164.25, 81.0]], [[326.25]]),  # half of that, as every batch is one example
    ],
)
def test_by_hand(scorer: FromData, first: list[list[float]], last: list[list[float]]) -> None:
    scores = scorer(two_layers(), DATA)
    assert scores["0.weight"].tolist() == first and scores["2.weight"].tolist() == last


def test_fisher_takes_batches_apart_and_taylor_does_not() -> None:
    both = [(torch.tensor([[1.0, 1.0], [2.0, 0.0]]), torch.tensor([[6.0], [10.0]]))]
    together = Calibration(both, squared)
    assert fisher()(two_layers(), together)["0.weight"].tolist() == [[164.25, 81.0]]
    # The batch's gradient is the mean, ((9 - 24) / 2, 9 / 2), and 0.5 for v.
    assert taylor()(two_layers(), together)["0.weight"].tolist() == [[56.25, 81.0]]


def test_fisher_looks_in_eval_mode() -> None:
    model = nn.Sequential(two_layers(), nn.Dropout(0.9)).train()
    assert fisher()(model, DATA)["0.0.weight"].tolist() == [[164.25, 81.0]]


def test_grasp_by_hand() -> None:
    # L = sum over rows of (v h - y)^2 / 2, h = w.x. g = (-15, 9; 1). H = sum of J J^T + e * d2f, with
    # J = (v x1, v x2; h) and d2f/dw dv = x: rows J = (3, 3; 3) and (6, 0; 2), e = 3 and -4.
    # H_ww = [[45, 9], [9, 9]], H_wv = (9 + 12 + 3 - 8, 9 + 0 + 3) = (16, 12), H_vv = 9 + 4 = 13.
    # Hg = (45 * -15 + 9 * 9 + 16, 9 * -15 + 81 + 12; 16 * -15 + 12 * 9 + 13) = (-578, -42; -119).
    scores = grasp()(two_layers(), DATA)
    assert scores["0.weight"].tolist() == [[-578.0, -84.0]] and scores["2.weight"].tolist() == [[-357.0]]


def test_grasp_predicts_what_a_removal_does_to_the_flow_of_gradients() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    data = Calibration([torch.randn(8, 4, dtype=torch.float64)], lambda net, x: net(x).square().mean())
    scores = grasp()(model, data)

    def flow() -> float:
        loss = next(data.losses(model))
        return sum(float(g.square().sum()) for g in torch.autograd.grad(loss, list(model.parameters())))

    before, step = flow(), 1e-6
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.view(-1)[0] *= 1 - step
        change = flow() - before  # first order: -2 step w.Hg
        with torch.no_grad():
            parameter.view(-1)[0] /= 1 - step
        assert change == pytest.approx(-2 * step * float(scores[name].view(-1)[0]), rel=1e-3, abs=1e-12)


@pytest.mark.parametrize("scorer", [snip(), taylor(), fisher(), grasp()])
def test_scores_of_float16_weights_do_not_vanish(scorer: FromData) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1, bias=False, dtype=torch.float16)
    data = Calibration([torch.rand(1, 4, dtype=torch.float16)], lambda net, x: net(x).float().square().mean() / 100)
    scores = scorer(model, data)["weight"]
    assert scores.dtype == torch.float32 and scores.all()


def test_dense_outputs_frozen_and_unused_parameters() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 1, 1), nn.Conv2d(1, 1, 1))
    model[0].weight.requires_grad_(False)
    image = torch.rand(2, 1, 5, 5)
    data = Calibration([image], lambda net, x: (net[1](net[0](x)) - x).abs().mean())
    for scorer in (snip(), taylor(), fisher(), grasp()):
        masks = prune(model, Masks.dense(model), 0.5, scorer=scorer, data=data)
        assert masks.kept == round(0.5 * masks.prunable)
        scores = scorer(model, data)
        assert scores["0.weight"].abs().sum() > 0
        assert scores["2.weight"].tolist() == [[[[0.0]]]]  # no loss depends on it
    model[0].weight.requires_grad_(False)
    prune(model, Masks.dense(model), 0.5, scorer=snip(), data=data)
    assert not model[0].weight.requires_grad and all(each.grad is None for each in model.parameters())


def test_grasp_differentiates_attention_twice() -> None:
    model = nn.Linear(4, 4)
    x = torch.randn(1, 1, 6, 4, generator=torch.Generator().manual_seed(0))
    attend = nn.functional.scaled_dot_product_attention
    data = Calibration([x], lambda net, x: attend(net(x), net(x), net(x)).square().mean())
    assert grasp()(model, data)["weight"].abs().sum() > 0


def test_grasp_sees_the_same_dropout_in_both_of_its_passes() -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.ones(200))
    data = Calibration([torch.ones(200)], lambda net, x: nn.functional.dropout(net.weight * x).square().sum() / 2)
    torch.manual_seed(0)
    scores = grasp()(model, data)["weight"]  # each is left out, or doubled: m^2 = 4, and so w Hg = 16
    assert set(scores.tolist()) == {0.0, 16.0} and 80 < int((scores > 0).sum()) < 120


def test_what_cannot_be_differentiated_twice_is_said() -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: torch.autograd.function.FunctionCtx, g: Tensor) -> Tensor:
            return g.clone()

    data = Calibration([torch.ones(2, 2)], lambda net, x: Once.apply(net(x)).square().sum())
    assert snip()(two_layers(), data)["2.weight"].item() > 0
    with pytest.raises(SelectionError, match="grasp differentiates twice, which this network does not allow"):
        grasp()(two_layers(), data)


def test_bad_losses_are_said() -> None:
    with pytest.raises(SelectionError, match=r"loss on the calibration data is of shape \(1, 1\)"):
        snip()(two_layers(), Calibration([torch.ones(1, 2)], lambda net, x: net(x)))
    with pytest.raises(SelectionError, match="loss on the calibration data is nan"):
        snip()(two_layers(), Calibration([torch.ones(1, 2)], lambda net, x: net(x).sum() * float("nan")))
    with pytest.raises(SelectionError, match=r"looks at losses: pass data=prunekit.Calibration\(batches, loss\)"):
        prune(two_layers(), Masks.dense(two_layers()), 0.5, scorer=snip())
