"""Lottery tickets of other people's restoration networks: NAFNet, SwinIR and DnCNN of spandrel, in one's own loop.

Run: pip install "prunekit[spandrel]" && python examples/other_restorers.py
"""

import math

import torch
from torch import Tensor, nn

import prunekit as pk
from prunekit.network import bind_network

STEPS, ROUNDS, SIDE, SIGMA = 50, 3, 16, 25 / 255

NETWORKS = (
    {"name": "spandrel:NAFNet", "width": 12, "enc_blk_nums": [1], "dec_blk_nums": [1]},
    {"name": "spandrel:SwinIR", "img_size": SIDE, "embed_dim": 16, "depths": [2], "num_heads": [2], "window_size": 8},
    {"name": "spandrel:DnCNN", "nc": 16, "nb": 5},  # restores grey images, as its authors' does
)


def images(seed: int, channels: int) -> Tensor:
    """Waves of random direction and colour in [0, 1]: shape (8, channels, SIDE, SIDE)."""
    draw = torch.Generator().manual_seed(seed)
    down, along, phase, depth = torch.rand(4, 8, channels, 1, 1, generator=draw)
    place = torch.arange(SIDE) / SIDE * 2 * math.pi
    return 0.5 + 0.4 * depth * torch.sin(3 * down * place[:, None] + 3 * along * place + 2 * math.pi * phase)


def noisy(clean: Tensor, seed: int) -> Tensor:
    """The same noise whenever this step is trained."""
    return clean + SIGMA * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))


def train(model: nn.Module, call: pk.ImageCall) -> float:
    """Any loop, any optimiser; returns the PSNR in dB on images that were not trained on."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(STEPS):
        clean = images(step, call.channels)
        loss = nn.functional.l1_loss(call(model.train(), noisy(clean, step)), clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        clean = images(10**6, call.channels)
        return -10 * math.log10(nn.functional.mse_loss(call(model.eval(), noisy(clean, 10**6)), clean))


def main() -> None:
    """Prune each to 10 % in three rounds, rewinding to initialisation."""
    print(f"PSNR in dB after {STEPS} steps at each density; the noisy images have {-20 * math.log10(SIGMA):.2f}")
    for network in NETWORKS:
        torch.manual_seed(0)
        model = bind_network(network)()  # any module will do; this is spandrel's own, by name
        call = pk.image_call(model)  # grey or RGB, padding, a noise-level map, an output in a tuple: found by trying
        start, masks = pk.snapshot(model), pk.Masks.dense(model)
        cells = []
        for density in pk.levels(pk.geometric(0.1), rounds=ROUNDS):
            with pk.hold(model, masks):
                cells.append(f"{masks.density:4.0%} {train(model, call):5.2f}")
            masks = pk.prune(model, masks, density)
            pk.restore(model, start, masks)
        with pk.hold(model, masks):
            cells.append(f"{masks.density:4.0%} {train(model, call):5.2f}")
        print(f"{network['name']:15} {masks.kept:5,} of {masks.prunable:6,} prunable | {' | '.join(cells)}")


if __name__ == "__main__":
    main()
