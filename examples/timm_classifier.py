"""A timm classifier on scikit-learn's handwritten digits: dense, a ticket of 10 %, and random weights in its place.

Run: python examples/timm_classifier.py    (needs: pip install "prunekit[digits]")
"""

import torch
from torch import nn

import prunekit as pk
from prunekit.digits import Digits, digits
from prunekit.task import averages

STEPS, REWIND_STEP, DENSITY = 70, 20, 0.1


def train(task: Digits, model: nn.Module, first: int, last: int) -> None:
    """Train from one step to another; batches and learning rate depend on the step alone."""
    optimizer = task.optimizer(model.train())
    base = optimizer.param_groups[0]["lr"]
    for step, batch in zip(range(first, last), task.batches(first)):  # noqa: B905  (batches never end)
        optimizer.param_groups[0]["lr"] = base * task.lr(step)
        optimizer.zero_grad()
        task.loss(model, batch).backward()
        optimizer.step()


def retrain(task: Digits, model: nn.Module, masks: pk.Masks, name: str) -> None:
    """Train what the masks keep, from the rewind point on, and print how good it is."""
    with pk.hold(model, masks):
        train(task, model, REWIND_STEP, STEPS)
    with torch.no_grad():
        accuracy, entropy = averages(task.evaluate(model.eval()))
    print(
        f"{name:>22}: {masks.kept:7,} of {masks.prunable:,} prunable weights ({masks.density:6.2%}), "
        f"accuracy {accuracy.value:.1%}, cross-entropy {entropy.value:.3f}"
    )


def main() -> None:
    """Train dense, prune in three rounds with rewinding, then give as many random weights the same chance."""
    torch.manual_seed(0)
    task = digits(steps=STEPS, batch=24, lr=4e-3)  # network={"name": "timm:...", "num_classes": 10}: any other
    model = task.model()
    train(task, model, 0, REWIND_STEP)
    start, dense = pk.snapshot(model), pk.Masks.dense(model)

    retrain(task, model, dense, "dense")
    masks = dense
    for density in pk.levels(pk.geometric(DENSITY), rounds=3):
        masks = pk.prune(model, masks, density)
        pk.restore(model, start, masks)
        retrain(task, model, masks, "magnitude, rewound")

    control = pk.prune(model, dense, DENSITY, scorer=pk.random(seed=0))
    pk.restore(model, start, control)
    retrain(task, model, control, "random, same start")


if __name__ == "__main__":
    main()
