"""Iterative magnitude pruning in one's own training loop: no task, no recipe, no trainer.

Run: python examples/own_loop.py
"""

import torch
from torch import nn

import prunekit as pk

STEPS, REWIND_STEP = 300, 20


def train(model: nn.Module, start_step: int, end_step: int) -> float:
    """Any loop, any optimiser: here a denoiser of short sine waves; returns the last loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loss = torch.zeros(())
    for step in range(start_step, end_step):
        generator = torch.Generator().manual_seed(step)  # the same data whenever this step is trained
        phase = torch.rand(64, 1, generator=generator) * 6.3
        clean = torch.sin(phase + torch.linspace(0, 6.3, 32))
        noisy = clean + 0.5 * torch.randn(clean.shape, generator=generator)
        loss = nn.functional.mse_loss(model(noisy), clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def main() -> None:
    """Prune to 10 % in five rounds, rewinding to step 20."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 32))
    train(model, 0, REWIND_STEP)
    start, masks = pk.snapshot(model), pk.Masks.dense(model)

    for density in pk.levels(pk.geometric(0.1), rounds=5):
        with pk.hold(model, masks):
            loss = train(model, REWIND_STEP, STEPS)
        print(f"kept {masks.kept:6,} of {masks.prunable:,} prunable ({masks.density:6.2%}): loss {loss:.4f}")
        masks = pk.prune(model, masks, density)  # global magnitude unless told otherwise
        pk.restore(model, start, masks)
    with pk.hold(model, masks):
        loss = train(model, REWIND_STEP, STEPS)
    print(f"kept {masks.kept:6,} of {masks.prunable:,} prunable ({masks.density:6.2%}): loss {loss:.4f}")


if __name__ == "__main__":
    main()
