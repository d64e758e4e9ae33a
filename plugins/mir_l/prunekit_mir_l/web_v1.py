"""The test set web-v1: eight chains of the web on clean photographs, fixed by code and seeds, checked by hashes.

Each takes a whole photograph. What comes out depends on the photograph's pixels, for uploads on its name without the
ending, and on the encoders' versions: ``manifest.py`` tells whether these pixels are those of the manifest.
"""

from __future__ import annotations

from prunekit_mir_l.web import Compress, Resize, Step

_FIXED: dict[str, tuple[Step, ...]] = {
    "jpeg-15-422": (Compress("jpeg", 15, "4:2:2"),),
    "jpeg-30-444": (Compress("jpeg", 30, "4:4:4"),),
    "twice-aligned": (Compress("jpeg", 20), Compress("jpeg", 40)),
    "twice-shifted": (Compress("jpeg", 20), Compress("jpeg", 40, shift=(3, 5))),
    "webp-as-jpeg-20": (Compress("webp", 20, as_jpeg=True),),
    "avif-as-jpeg-20": (Compress("avif", 20, as_jpeg=True),),
    "resized": (Resize(0.5, "box"), Resize(0.8, "lanczos"), Resize(1, "bicubic")),
}
NAMES = (*_FIXED, "upload")


def chain(name: str, stem: str) -> tuple[Step, ...]:
    """Return one chain of web-v1; never changed, a better set would be web-v2.

    Args:
        name: among ``NAMES``.
        stem: the photograph's file name without its ending, which uploads are drawn by.

    Example:
        >>> chain("twice-shifted", "chelsea")[1].shift
        (3, 5)
    """
    return _FIXED[name] if name in _FIXED else _upload(stem)


def _upload(stem: str) -> tuple[Step, ...]:
    from prunekit.data import generator  # brings torch, which a verb's help must not

    rng = generator("web-v1", stem)
    first, second = (round(float(rng.uniform(0.5, 0.85)), 2) for _ in range(2))
    high, low = (int(rng.integers(*span)) for span in ((60, 86), (30, 61)))
    shrunk = (Resize(first, "lanczos"), Compress("jpeg", high))
    return *shrunk, Resize(second, "bilinear"), Compress("jpeg", low), Resize(1, "bicubic")
