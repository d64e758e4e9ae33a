"""A folder of images as calibration data: alone, in pairs with targets, or with noise that the network removes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from prunekit.calibration import Calibration
from prunekit.data import generator
from prunekit.errors import DataError, PruneKitError
from prunekit.imaging import ImageCall

PAIR = ("input", "target")
"""Folders of a set of pairs."""


def folder_data(
    folder: str | Path, call: ImageCall, *, noise: float | None = None, images: int = 16, crop: int = 128
) -> Calibration:
    """Return the first images of a folder, sorted by name, as batches of one image each.

    Args:
        folder: holds images; or ``input/`` and ``target/`` with as many images each, paired in sorted order.
        call: how the network wants to be called, from `image_call`; grey or RGB is read accordingly.
        noise: standard deviation on the 0..255 scale of seeded Gaussian noise, a function of it and the file's name;
            pairs are made of the noisy image and the image. A network with a noise-level map is told it.
        images: how many are read at most.
        crop: they are cut around their centre to at most so many pixels a side.

    Returns:
        With targets: batches (input, target), float32 in [0, 1] plus noise, of shape (1, channels, height, width), and
        as loss the mean squared error of the network's output, not clamped. Without: inputs of the network, no loss.
        All on the CPU.

    Raises:
        DataError: there is no such folder or no image in it, a file is no image, or images do not pair.
        PruneKitError: Pillow is missing.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("L", (20, 10), 255).save(folder / "white.png")
        >>> data = folder_data(folder, ImageCall(channels=1), noise=25)
        >>> [round(float(loss), 4) for loss in data.losses(nn.Identity())]  # (25 / 255) squared, or so
        [0.0098]
    """
    folder = Path(folder)
    _check(folder, noise, images, crop)
    if noise is not None:
        call = replace(call, level=noise / 255)
    if (folder / PAIR[0]).is_dir() or (folder / PAIR[1]).is_dir():
        if noise is not None:
            raise DataError(f"{folder} has targets of its own: leave the noise out, or name {folder / PAIR[1]}.")
        return Calibration(
            [_pair(*files, call.channels, crop) for files in _paired(folder)[:images]], partial(_loss, call)
        )
    files = _files(folder)[:images]
    clean = [_centre(_read(file, call.channels), crop) for file in files]
    if noise is not None:
        noisy = [image + _noise(file.name, noise, image) for file, image in zip(files, clean, strict=True)]
        return Calibration(list(zip(noisy, clean, strict=True)), partial(_loss, call))
    return Calibration([call.input(nn.Identity(), image) for image in clean])


def _check(folder: Path, noise: float | None, images: int, crop: int) -> None:
    if not folder.is_dir():
        what = "a file, not a folder" if folder.exists() else "not there"
        raise DataError(f"{folder} is {what}: name a folder of images, or of input/ and target/.")
    if noise is not None and not 0 < noise <= 255:
        raise DataError(f"noise must be above 0 and at most 255, not {noise:g}: a deviation on the scale of 0 to 255.")
    for what, value in (("images", images), ("crop", crop)):
        if value < 1:
            raise DataError(f"{what} must be at least 1, not {value}.")


def _loss(call: ImageCall, model: nn.Module, pair: tuple[Tensor, Tensor]) -> Tensor:
    x_bchw, target_bchw = pair
    made_bchw = call(model, x_bchw)
    return (made_bchw - target_bchw.to(made_bchw)).square().mean()


def _files(folder: Path) -> list[Path]:
    """Return a folder's files by name; hidden ones, which systems leave about, are passed over."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    if not files:
        raise DataError(f"{folder} holds no image: name a folder of images, or of input/ and target/.")
    return files


def _paired(folder: Path) -> list[tuple[Path, Path]]:
    for part in PAIR:
        if not (folder / part).is_dir():
            raise DataError(f"{folder} has one half of its pairs only: {folder / part} is missing.")
    inputs, targets = (_files(folder / part) for part in PAIR)
    if len(inputs) != len(targets):
        raise DataError(
            f"{folder}: {len(inputs)} files in input/ and {len(targets)} in target/ cannot be paired; they go together "
            "in sorted order, so each needs its partner."
        )
    return list(zip(inputs, targets, strict=True))


def _pair(first: Path, second: Path, channels: int, crop: int) -> tuple[Tensor, Tensor]:
    x_bchw, target_bchw = _read(first, channels), _read(second, channels)
    if x_bchw.shape != target_bchw.shape:
        sizes = " and ".join(f"{each.shape[-1]} x {each.shape[-2]}" for each in (x_bchw, target_bchw))
        raise DataError(f"{first} and {second} are no pair: they have {sizes} pixels.")
    return _centre(x_bchw, crop), _centre(target_bchw, crop)


def _noise(name: str, sigma: float, like: Tensor) -> Tensor:
    drawn = generator("noise", name, f"{sigma:g}").standard_normal(tuple(like.shape), dtype=np.float32)
    return torch.from_numpy(drawn) * (sigma / 255)


def _read(file: Path, channels: int) -> Tensor:
    """Return an image, uint8 of shape (1, channels, height, width)."""
    try:
        from PIL import Image, ImageOps
    except ImportError as cause:
        raise PruneKitError('reading images needs Pillow: pip install "prunekit[images]".') from cause
    try:
        with Image.open(file) as opened:
            turned = ImageOps.exif_transpose(opened)
            if turned.mode.startswith("I"):  # 16 bits, of which Pillow's own conversion would clip all above 255
                turned = Image.fromarray((np.asarray(turned).clip(0, 65535) >> 8).astype(np.uint8))
            pixels = np.array(turned.convert("L" if channels == 1 else "RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError) as cause:
        raise DataError(f"{file} is no image that can be read ({cause}): take it out of the folder.") from cause
    return torch.from_numpy(pixels).reshape(*pixels.shape[:2], channels).permute(2, 0, 1)[None]


def _centre(image_bchw: Tensor, crop: int) -> Tensor:
    """Return at most ``crop`` pixels a side around the centre, as float32 in [0, 1]."""
    top, left = (max(0, side - crop) // 2 for side in image_bchw.shape[-2:])
    return image_bchw[..., top : top + crop, left : left + crop].float() / 255
