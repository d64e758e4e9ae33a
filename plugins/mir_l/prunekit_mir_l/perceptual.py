"""LPIPS and DISTS through piq, which fetches the weights of their networks; both optional (extra ``perceptual``)."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from prunekit.errors import RecipeError
from prunekit_mir_l.images import Floats

Score = Callable[[Floats, Floats], float]

PROTOCOLS = {
    "lpips": "LPIPS (piq, VGG16) of RGB clipped to [0, 1], per image",
    "dists": "DISTS (piq, VGG16) of RGB clipped to [0, 1], shorter side at most 256 px, per image",
}
SIDE = 32
"""Pixels that VGG16 halves five times."""

_CLASSES = {"lpips": "LPIPS", "dists": "DISTS"}
_VGG = "https://download.pytorch.org/models/vgg16-397923af.pth"


def distance(name: str) -> Score:
    """Load a network that tells how different two images look, and return the distance that it computes.

    Args:
        name: a key of ``PROTOCOLS``.

    Raises:
        RecipeError: piq is not installed, or its weights cannot be had.

    Reference:
        LPIPS: Zhang et al. 2018; DISTS: Ding et al. 2020, both as piq computes them.
    """
    try:
        build = getattr(import_module("piq"), _CLASSES[name])
    except ImportError as error:
        raise RecipeError(
            f'metric {name!r} needs piq ({error}): pip install "prunekit-mir-l[perceptual]", or leave the metric out.'
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # piq names torchvision's weights in an old way
            network = build()
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise RecipeError(_unavailable(name, getattr(build, "_weights_url", ""), error)) from error

    @torch.no_grad()
    def score(image: Floats, target: Floats) -> float:
        return float(network(*(_batch(pixels) for pixels in (image, target))))

    return score


def _batch(image: Floats) -> Tensor:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.from_numpy(image.clip(0, 1)).permute(2, 0, 1)[None].to(device)


def _unavailable(name: str, url: str, error: Exception) -> str:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    wanted = [each for each in (_VGG, url) if each]
    states = (f"{each} ({'there' if (folder / Path(each).name).is_file() else 'missing'})" for each in wanted)
    return (
        f"the weights of metric {name!r} cannot be had ({error}). They are read from {folder}, and fetched where they "
        f"are missing. Put these files there by hand, or leave the metric out: {', '.join(states)}."
    )
