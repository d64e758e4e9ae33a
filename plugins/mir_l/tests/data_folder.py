"""A small data folder in the published layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def paint(path: Path, height: int = 96, width: int = 80) -> None:
    """Write an image of random pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def make(root: Path) -> Path:
    """Make a data folder: in each split two clean images, two rainy pairs and one hazy pair."""
    for split in ("train", "test"):
        home = root / split
        for name in ("a.jpg", "b.PNG"):
            paint(home / "denoise" / "BSD" / name)
        for name in ("rain-001", "rain-002"):
            paint(home / "derain" / "Rain100L" / "input" / f"{name}_rainy.png")
            paint(home / "derain" / "Rain100L" / "target" / f"{name}_gt.png")
        paint(home / "dehaze" / "OTS" / "input" / "0001_0.8_0.2_hazy.jpg")
        paint(home / "dehaze" / "OTS" / "target" / "0001_0.8_0.2_gt.png")
    return root
