"""``prunekit mir_l restore``: image files in, restored image files of the same names out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import prunekit as pk
from prunekit.environment import keep_heap
from prunekit.errors import DataError, RecipeError, RunError
from prunekit.imaging import ImageCall, image_call
from prunekit.native import kernels
from prunekit_mir_l.images import Pixels, grey, read_rgb

FAST_SIDE = 128
"""Pixels a side of the image on which layers are timed."""
_QUALITY: dict[str, dict[str, Any]] = {
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
    ".webp": {"lossless": True},
}


def restore_files(
    source: Path,
    images: Sequence[Path],
    out: Path,
    *,
    stage: str | None = None,
    network: str | None = None,
    fast: bool = False,
) -> Iterator[str]:
    """Restore each image and write it to ``out`` under its own name; yields a line of text for each.

    A network of grey images restores the luma (BT.601), and what is written is grey. JPEG is written at quality 95
    without chroma subsampling, everything else without loss.

    Args:
        source: a run directory of a restoration network, a ticket file, or a weights file with ``network``.
        images: files of any size, each side at least 1 pixel.
        out: folder, made where it is missing.
        stage: name of a finished stage of a run; the last by default.
        network: name of the network, where the source does not say it or is not to be believed.
        fast: leave out the zeros (see ``prunekit.sparse.compile``) if there are kernels; worth it from a few images on.

    Raises:
        RunError: no restoration network, or no such stage.
        DataError: an image cannot be read, or its output would overwrite something; checked before any work.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file, not a folder; choose another with -o.")
    targets = [out / image.name for image in images]
    for image, target in zip(images, targets, strict=True):
        if not image.is_file():
            raise DataError(f"{image}: no such file.")
        if target.exists():
            raise DataError(f"{target} exists already and is left as it is; choose another folder with -o.")
        if targets.count(target) > 1:
            raise DataError(f"two images are called {image.name}; restore them into different folders.")
    model, call = load(source, stage=stage, network=network)
    if fast:
        keep_heap()
        if kernels() is not None:
            model = pk.sparse.compile(model, call.input(model, torch.zeros(1, call.channels, FAST_SIDE, FAST_SIDE)))
    for image, target in zip(images, targets, strict=True):
        write(restored(model, call, read_rgb(image)), target)
        yield f"{image} -> {target}"


def load(source: Path, *, stage: str | None = None, network: str | None = None) -> tuple[nn.Module, ImageCall]:
    """Return a ticket's network in eval mode on the CPU, and how it wants to be called.

    Raises:
        RunError: it does not turn images into images of the same size.
        PruneKitError: as ``prunekit.load`` and ``Ticket.model``.
    """
    ticket = pk.load(source, stage=stage, network=network)
    if not ticket.trained:
        raise RunError(f"{source} is the name of a network that nobody trained; give a run or a file.")
    model = ticket.model()
    try:
        return model, image_call(model)
    except RecipeError as error:
        raise RunError(f"{source} holds a network that restores no images: {error}") from error


def restored(model: nn.Module, call: ImageCall, pixels_hwc: Pixels) -> Pixels:
    """Return the restored image, grey where the network wants it: clipped to [0, 1], rounded to 8 bits.

    Args:
        model: the network.
        call: how it wants to be called.
        pixels_hwc: RGB.
    """
    seen_hwc = grey(pixels_hwc) if call.channels == 1 else pixels_hwc
    x_bchw = torch.from_numpy(seen_hwc.copy()).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        y_bchw = call(model, x_bchw).clamp(0, 1)
    rounded: Pixels = (y_bchw[0].permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)
    return rounded


def write(pixels_hwc: Pixels, target: Path) -> None:
    """Write an image under a name that must be free."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        try:
            kind = Image.registered_extensions()[target.suffix.lower()]
            Image.fromarray(pixels_hwc.squeeze(2) if pixels_hwc.shape[2] == 1 else pixels_hwc).save(
                file, format=kind, **_QUALITY.get(target.suffix.lower(), {})
            )
        except BaseException as cause:
            target.unlink()  # no half a picture under a good name
            if not isinstance(cause, (KeyError, OSError, ValueError)):
                raise
            raise DataError(f"{target} cannot be written as {target.suffix or 'an image'}: {cause}.") from cause
