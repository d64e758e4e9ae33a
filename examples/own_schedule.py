"""A schedule of one's own is one function: progress in [0, 1] -> density in (0, 1].

Run: python examples/own_schedule.py

In a recipe, from the folder of this file:

    prunekit plan digits strategy.rounds=4 \
        "strategy.schedule={name: 'python:own_schedule:staircase', density: 0.1, stairs: 4}"
"""

import torch
from torch import nn

import prunekit as pk
from prunekit.schedule import Schedule


def staircase(*, density: float, stairs: int = 4) -> Schedule:
    """Fall from 1 to ``density`` in equal, sudden steps, of which the last comes with the end."""
    return lambda progress: 1 - (1 - density) * int(progress * stairs + 1e-9) / stairs


def warm_start(*, density: float, wait: float = 0.25) -> Schedule:
    """Cut nothing for a while, then fall as geometric does."""
    return lambda progress: density ** (max(0.0, progress - wait) / (1 - wait))


def main() -> None:
    """Print schedules beside each other, then cut along one of one's own."""
    schedules = {
        "geometric": pk.geometric(0.1),
        "cubic": pk.cubic(0.1),
        "staircase": staircase(density=0.1),
        "warm start": warm_start(density=0.1),
    }
    for name, schedule in schedules.items():
        print(f"{name:>10}, over the progress:  " + "  ".join(f"{schedule(k / 8):.3f}" for k in range(9)))

    for name in ("geometric", "cubic", "staircase"):
        (stage,) = pk.gradual(1000, schedules[name], begin=200, end=800, every=150)
        cuts = "  ".join(f"{step}: {amount.value:.3f}" for step, amount in stage.prune_at)
        print(f"{name:>10}, gradual, by step:   {cuts}")

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    masks = pk.Masks.dense(model)
    for density in pk.levels(schedules["staircase"], rounds=4):  # train here, and rewind after each
        masks = pk.prune(model, masks, density)
        print(f"kept {masks.kept:5,} of {masks.prunable:,} prunable ({masks.density:.2%})")


if __name__ == "__main__":
    main()
