"""A scorer of one's own is one function: here, magnitude relative to the mean of its tensor.

Run: python examples/own_scorer.py
"""

import torch
from torch import nn

import prunekit as pk
from prunekit.score import PerTensor


def relative_magnitude() -> PerTensor:
    """Score a weight by its magnitude over its tensor's mean magnitude; higher is kept."""
    return PerTensor(lambda name, weight: weight.abs() / weight.abs().mean())


def main() -> None:
    """Compare where two scorers cut."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 64, 3), nn.ReLU(), nn.Conv2d(64, 8, 1))
    for name, scorer in (("magnitude", pk.magnitude()), ("relative", relative_magnitude())):
        masks = pk.prune(model, pk.Masks.dense(model), 0.2, scorer=scorer)
        shares = "  ".join(f"{tensor} {kept / total:.0%}" for tensor, (kept, total) in masks.per_tensor().items())
        print(f"{name:>10}: kept {masks.kept:,} of {masks.prunable:,} prunable;  {shares}")


if __name__ == "__main__":
    main()
