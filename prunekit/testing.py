"""Laws that every scorer, allocation and plugin must pass, as plain functions that raise ``AssertionError``."""

from __future__ import annotations

import random as python_random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from prunekit.allocate import Allocation, everywhere
from prunekit.amount import Amount, Density, MacDensity, Rate, Target
from prunekit.calibration import Calibration
from prunekit.masks import Masks
from prunekit.measure import count_macs
from prunekit.plan import Plan, checked
from prunekit.pruner import Unstructured
from prunekit.rewind import snapshot
from prunekit.schedule import Schedule, refuse_rising
from prunekit.score import Scorer, Scores
from prunekit.select import parameters
from prunekit.structured.pruner import Structured

_CHANGED = "the cut changed weights, buffers, gradients, what is frozen, modes, hooks or random state"

AMOUNTS: tuple[Amount, ...] = (Density(1.0), Density(0.5), Density(0.03), Rate(0.2), Rate(0.9), Rate(0.0))


def example_model() -> nn.Sequential:
    """Return a small seeded network with what trips scorers up: BatchNorm, dropout, groups, a frozen parameter."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(4, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.PReLU(),
            nn.Dropout(0.3),
            nn.Conv2d(8, 4, 3, groups=2),
            nn.Flatten(),
            nn.Linear(64, 5),
        )
    model[2].weight.requires_grad_(False)
    return model


def example_data() -> Calibration:
    """Return a calibration for ``example_model``: two batches of three 6x6 images of four channels, and a movement."""
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(3, 4, 6, 6, generator=generator) for _ in range(2)]
    moved = {name: torch.randn(each.shape, generator=generator) for name, each in parameters(example_model()).items()}
    return Calibration(batches, lambda model, images: model(images).square().mean(), moved)


def check_scorer(factory: Callable[[], Scorer]) -> None:
    """Check a scorer: floating-point scores of the right shapes; deterministic; and all laws of a cut.

    Example:
        >>> from prunekit import magnitude
        >>> check_scorer(magnitude)
    """
    model = example_model()
    masks = Masks.dense(model)
    scores = factory()(model, example_data())
    for name, mask in masks.items():
        score = scores[name]
        assert score.is_floating_point(), f"the score of {name!r} is {score.dtype}, not floating-point"
        assert score.shape == mask.shape, f"the score of {name!r} has shape {tuple(score.shape)}"
        assert not score.requires_grad, f"the score of {name!r} keeps a graph alive"
    for amount in AMOUNTS:
        check_cut(factory, everywhere, amount)


def check_allocation(factory: Callable[[], Allocation], *, amounts: Sequence[Amount] = AMOUNTS) -> None:
    """Check an allocation: never revives; exact count in total or per tensor; ties; types; and all laws of a cut.

    Args:
        factory: makes the allocation.
        amounts: what it can be asked for.

    Example:
        >>> from prunekit import everywhere
        >>> check_allocation(everywhere)
    """
    model = example_model()
    dense = Masks.dense(model)
    for scores in _scores(dense):
        for amount in amounts:
            now = dense
            for _ in range(3):
                after = factory()(scores, now, amount)
                _check_within(now, after)
                _check_count(now, after, amount)
                assert after == factory()(scores, now, amount), "two calls give different masks"
                now = after
    for amount in amounts:
        check_cut(_weights, factory, amount)


def check_schedule(schedule: Schedule) -> None:
    """Check a schedule: densities above 0 and at most 1, never rising, the same at every call.

    Example:
        >>> from prunekit import geometric
        >>> check_schedule(geometric(0.1))
    """
    points = [k / 1000 for k in range(1001)]
    densities = [schedule(point) for point in points]
    refuse_rising(densities)
    assert densities == [schedule(point) for point in points], "two calls give different densities"


def check_strategy(strategy: Callable[[int], Plan]) -> None:
    """Check a strategy: a function of the number of steps alone, whose plan can be walked, within them.

    Example:
        >>> from prunekit import at_init
        >>> check_strategy(lambda steps: at_init(steps, density=0.1))
    """
    for steps in (1, 20, 1000):
        plan = checked(strategy(steps))
        assert plan == strategy(steps), "two calls give different plans"
        assert plan[-1].end <= steps, f"stage {plan[-1].name} trains past step {steps}"
        refuse_rising([t.value for stage in plan for _, t in stage.prune_at if not isinstance(t, Rate)])


def check_cut(scorer: Callable[[], Scorer], allocation: Callable[[], Allocation], amount: Target) -> None:
    """Check that a cut only reads the model, repeats exactly, cuts the prunable only, and survives saving.

    Example:
        >>> from prunekit import everywhere, magnitude
        >>> check_cut(magnitude, everywhere, Density(0.1))
    """
    model = example_model().train()
    model[3].eval()
    model(next(example_data().inputs(model))).sum().backward()
    pruner = Unstructured(scorer(), allocation())
    start = pruner.start(model)
    before, weights = _everything(model), snapshot(model)
    after = pruner.cut(model, start, amount, example_data())
    assert _same(before, _everything(model)), _CHANGED
    assert after == Unstructured(scorer(), allocation()).cut(model, start, amount, example_data()), "no two cuts agree"
    assert pruner.load(after.state_dict()) == after, "saving and loading changes the masks"
    _check_within(start, after)
    after.apply_(model)
    for name, tensor in snapshot(model).items():
        expected = weights[name] * after[name] if name in after else weights[name]
        assert tensor.dtype == expected.dtype, f"{name!r} changed its type"
        assert torch.equal(tensor, expected), f"{name!r} is not what the masks leave of it"


def check_structured_cut(scorer: Callable[[], Scorer], amount: Target) -> None:
    """Check that a structured cut only reads the model, repeats, meets its target from below, and survives saving.

    Example:
        >>> from prunekit import magnitude
        >>> check_structured_cut(magnitude, Density(0.5))
    """
    model = example_model().train()
    model[3].eval()
    model(next(example_data().inputs(model))).sum().backward()
    pruner = Structured(scorer())
    start = pruner.start(model)
    before, weights = _everything(model), snapshot(model)
    after = pruner.cut(model, start, amount, example_data())
    assert _same(before, _everything(model)), _CHANGED
    assert after == Structured(scorer()).cut(model, start, amount, example_data()), "no two cuts agree"
    assert pruner.load(after.state_dict()) == after, "saving and loading changes the shape"
    example = next(example_data().inputs(model))[:1]
    outputs = model.eval()(example).shape
    after.apply_(model)
    if isinstance(amount, MacDensity):
        left, most = count_macs(model, example).dense, amount.limit
    else:
        left, most = after.kept, amount.keep(start.kept, start.prunable)
    assert left <= most, f"{amount}: {left} are left, asked for {most}"
    assert model(example).shape == outputs, "the smaller network's output has another shape"
    for name, tensor in snapshot(model).items():
        assert torch.equal(tensor, after.select(weights)[name]), f"{name!r} is not what the shape leaves of it"
    if not isinstance(amount, Rate):
        data = replace(example_data(), movement=after.select(example_data().movement or {}))
        assert pruner.cut(model, after, amount, data) == after, "a cut that is met already cuts once more"


def _check_within(now: Masks, after: Masks) -> None:
    assert list(after) == list(now), "the masks' names or their order changed"
    for name, mask in after.items():
        assert mask.dtype == torch.bool and mask.shape == now[name].shape, f"mask {name!r} has another type or shape"
        assert not (mask & ~now[name]).any(), f"{name!r} has weights that came back"


def _check_count(now: Masks, after: Masks, amount: Amount) -> None:
    """Allow the amount to be met in total, or by every tensor."""
    each = all(
        kept == amount.keep(had, size)
        for (kept, size), (had, _) in zip(after.per_tensor().values(), now.per_tensor().values(), strict=True)
    )
    asked = amount.keep(now.kept, now.prunable)
    assert each or after.kept == asked, f"{amount}: {after.kept} kept of {now.kept}, asked {asked}"


def _scores(masks: Masks) -> Iterator[Scores]:
    """Yield scores of every kind: distinct, signed, all equal, few values, infinite, and each type."""
    generator = torch.Generator().manual_seed(2)
    normal = {name: torch.randn(mask.shape, generator=generator) for name, mask in masks.items()}
    yield normal
    yield {name: torch.zeros(mask.shape) for name, mask in masks.items()}
    yield {name: score.round() for name, score in normal.items()}
    yield {name: (score / 0).nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf) for name, score in normal.items()}
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        yield {name: score.to(dtype) for name, score in normal.items()}


def _weights() -> Scorer:
    return lambda model, data: {name: parameter.detach() for name, parameter in model.named_parameters()}


def _everything(model: nn.Module) -> dict[str, object]:
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {
        **{f"state/{name}": tensor for name, tensor in snapshot(model).items()},
        **{f"grad/{name}": None if grad is None else grad.clone() for name, grad in gradients.items()},
        "modes": [module.training for module in model.modules()],
        "frozen": [name for name, parameter in model.named_parameters() if not parameter.requires_grad],
        "hooks": [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()],
        "torch": torch.get_rng_state(),
        "python": python_random.getstate(),
        "numpy": str(np.random.get_state()),
    }


def _same(one: dict[str, object], other: dict[str, object]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, theirs) if isinstance(value, Tensor) and isinstance(theirs, Tensor) else value == theirs
        for value, theirs in ((value, other[key]) for key, value in one.items())
    )
