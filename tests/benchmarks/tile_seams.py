"""How near PromptIR's tiles come to the image restored at once: by themselves, and with the whole image's sums.

    python tests/benchmarks/tile_seams.py RUN PHOTO [--tile 256] [--overlap 32] [--looked-at 16]

RUN is a run or a ticket of a trained network; the photograph is damaged by noise, rain and haze, each in turn.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[2] / "plugins" / "mir_l"))

from prunekit_mir_l import degrade
from prunekit_mir_l.images import read_rgb
from prunekit_mir_l.metrics import floats, psnr
from prunekit_mir_l.restorer import load
from prunekit_mir_l.tiles import in_tiles, restored_floats, windows
from prunekit_mir_l.whole_image import SURVEYED, of_whole_image


def step(tiled: npt.NDArray[np.float32], whole: npt.NDArray[np.float32]) -> float:
    """Return the largest mean step of the difference from one column to the next, on the scale of [0, 1]."""
    return float(np.abs(np.diff(tiled - whole, axis=1)).mean(axis=(0, 2)).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--overlap", type=int, default=32)
    parser.add_argument("--looked-at", type=int, default=SURVEYED)
    options = parser.parse_args()
    network, clean = load(options.run), read_rgb(options.photo)
    model, call = network.model, network.call
    size = {"tile": options.tile, "overlap": options.overlap}
    for name, damage in (
        ("noise 25", lambda rng: degrade.noise(clean, 25, rng)),
        ("rain", lambda rng: degrade.rain(clean, rng)),
        ("haze", lambda rng: degrade.haze(clean, rng)),
    ):
        seen = damage(np.random.default_rng(0))
        whole, target = restored_floats(model, call, seen), floats(clean)
        fixed = of_whole_image(model, call, windows(seen, **size), looked_at=options.looked_at)
        print(f"{name}: at once {psnr(whole, target):.2f} dB to the target")
        for what, used in (("tiles alone", model), ("with the sums", fixed)):
            tiled = floats(in_tiles(used, call, seen, **size))
            print(
                f"    {what:14} {psnr(tiled, whole):6.2f} dB to it, {psnr(tiled, target):.2f} dB to the target, "
                f"largest step {step(tiled, whole):.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
