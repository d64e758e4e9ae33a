"""Iterative structured pruning in one's own training loop: channels go, and the network gets smaller and faster.

Run: python examples/structured.py
"""

import torch
from torch import nn

import prunekit as pk

STEPS, REWIND_STEP, SIDE = 100, 20, 16


def images(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return 16 images of waves with noise, and without; the same ones whenever this step is trained."""
    generator = torch.Generator().manual_seed(step)
    across, down, phase = 3 * torch.rand(3, 16, 1, 1, 1, generator=generator)
    grid = torch.linspace(0, 6.3, SIDE)
    clean_bchw = torch.sin(across * grid + down * grid[:, None] + phase)
    return clean_bchw + 0.5 * torch.randn(clean_bchw.shape, generator=generator), clean_bchw


def train(model: nn.Module, start_step: int, end_step: int) -> None:
    """Any loop, any optimiser; a new one each time, as the old one's moments are of the larger network."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(start_step, end_step):
        noisy, clean = images(step)
        optimizer.zero_grad()
        nn.functional.mse_loss(model.train()(noisy), clean).backward()
        optimizer.step()


def told(model: nn.Module, shape: pk.Shape) -> str:
    """Return what is left of the network, and the loss on images that no training sees."""
    noisy, clean = images(10**6)
    with torch.no_grad():
        loss = nn.functional.mse_loss(model.eval()(noisy), clean)
    macs = sum(each.dense for each in pk.macs_per_tensor(model, noisy[:1]).values())
    share = f"kept {shape.kept:6,} of {shape.prunable:,} prunable ({shape.density:6.2%})"
    return f"{share}: {macs:9,} multiply-adds, loss {loss:.4f}"


def main() -> None:
    """Prune to 10 % in three rounds, rewinding to step 20."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(24, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
    model = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), *layers, nn.Conv2d(24, 1, 3, padding=1))
    train(model, 0, REWIND_STEP)
    start, shape = pk.snapshot(model), pk.Shape.dense(model)
    pruner, data = pk.Structured(pk.magnitude()), pk.Calibration(example=torch.zeros(1, 1, SIDE, SIDE))

    for density in pk.levels(pk.geometric(0.1), rounds=3):
        train(model, REWIND_STEP, STEPS)
        print(told(model, shape))
        smaller = pruner.cut(model, shape, pk.Density(density), data)
        smaller.apply_(model, since=shape)  # the same parameters, smaller
        shape = smaller
        pk.restore(model, start, shape)
    train(model, REWIND_STEP, STEPS)
    print(told(model, shape))


if __name__ == "__main__":
    main()
