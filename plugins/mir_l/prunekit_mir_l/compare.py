"""Pictures side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from prunekit_mir_l.images import Pixels

WIDEST = 2000
"""Pixels a side-by-side is wide at most."""

_LABEL = 16


def side_by_side(images: Mapping[str, Pixels]) -> Image.Image:
    """Return images next to each other under their names, scaled to fit; below, their centres pixel by pixel.

    Args:
        images: name -> RGB of one size, or grey.
    """
    shown = {name: np.broadcast_to(pixels, (*pixels.shape[:2], 3)) for name, pixels in images.items()}
    height, width = next(iter(shown.values())).shape[:2]
    panel = max(1, min(width, WIDEST // len(shown)))
    tall = max(1, round(height * panel / width))
    centre = min(height, max(1, panel * 3 // 4)) if panel < width else 0
    sheet = Image.new("RGB", (panel * len(shown), _LABEL + tall + centre), "white")
    for i, (name, pixels) in enumerate(shown.items()):
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        ImageDraw.Draw(sheet).text((i * panel + 4, 2), name, fill="black")
        sheet.paste(picture.resize((panel, tall), Image.Resampling.LANCZOS), (i * panel, _LABEL))
        if centre:
            left, top = (width - panel) // 2, (height - centre) // 2
            sheet.paste(picture.crop((left, top, left + panel, top + centre)), (i * panel, _LABEL + tall))
    return sheet
