"""Networks to time, by the name ``python:tests.benchmarks.nets:NAME`` from the repository's root."""

from __future__ import annotations

from torch import Tensor, nn


class DnCNN(nn.Module):
    """Zhang et al. 2017, arXiv 1608.03981: plain convolutions that predict the noise (norms folded in)."""

    def __init__(self, layers: int = 17, width: int = 64, channels: int = 1) -> None:
        super().__init__()
        body: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(layers - 2):
            body += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*body, nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x - self.body(x)


def dncnn(layers: int = 17, width: int = 64, channels: int = 1) -> nn.Module:
    """Input N x channels x H x W: 1 for gray, 3 for RGB."""
    return DnCNN(layers, width, channels)


def token_mlp(width: int = 192, hidden: int = 768, blocks: int = 1) -> nn.Module:
    """The two linear layers of a transformer's block; input e.g. 1 x 4096 x width."""
    each = [[nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)] for _ in range(blocks)]
    return nn.Sequential(*(layer for block in each for layer in block))


def nafnet(width: int = 32, middle: int = 1, encoder: tuple[int, ...] = (1, 1, 1, 28)) -> nn.Module:
    """NAFNet of spandrel (pip install spandrel); input N x 3 x H x W, sides multiples of 16."""
    from spandrel.architectures.NAFNet import NAFNet

    return NAFNet(
        img_channel=3, width=width, middle_blk_num=middle, enc_blk_nums=list(encoder), dec_blk_nums=[1] * len(encoder)
    )


def swinir(dim: int = 180, blocks: int = 6, depth: int = 6, heads: int = 6) -> nn.Module:
    """SwinIR of spandrel; by default the classical x2 one, with ``dim=60, blocks=4`` about the lightweight one's body.

    Input N x 3 x H x W, sides multiples of 8; output twice as large.
    """
    from spandrel.architectures.SwinIR import SwinIR

    return SwinIR(
        img_size=64,
        embed_dim=dim,
        depths=[depth] * blocks,
        num_heads=[heads] * blocks,
        window_size=8,
        mlp_ratio=2,
        upscale=2,
        upsampler="pixelshuffle" if dim > 60 else "pixelshuffledirect",
    )
