"""Whether the images of web-v1 made here are, pixel by pixel, those that others make; and the set as files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, final

from PIL import Image

from prunekit.errors import DataError
from prunekit_mir_l import web, web_v1
from prunekit_mir_l.codecs import CODECS, need, versions
from prunekit_mir_l.embedded import embedded
from prunekit_mir_l.folders import sets
from prunekit_mir_l.images import Pixels, read_rgb


@final
@dataclass(frozen=True)
class Verdict:
    """What the manifest says of one photograph: in words, and whether any pixel is another."""

    text: str
    differs: bool


def web_set(root: Path | None, out: Path | None) -> Iterator[Verdict]:
    """Make web-v1 of the photographs in ``test/denoise`` of a data folder, or of the embedded ones, and verify it.

    Args:
        root: the data folder; None for the embedded photographs.
        out: the data folder to write pairs into, under ``test/web``; None writes nothing.

    Returns:
        A verdict for each photograph, made as they are asked for.

    Raises:
        RecipeError: Pillow lacks an encoder.
        DataError: there are no photographs, two would be written as one, or a set is there already.
    """
    for codec in CODECS:
        need(codec)
    found = _photographs(root)
    for name, paths in found.items() if out else ():
        if out and _folder(out, name).exists():
            raise DataError(f"{_folder(out, name)} is there already: remove it, or give another folder to write to.")
        _apart(paths)
    known = manifest()["photographs"]
    return (
        _verify(path, known.get(path.stem), _folder(out, name) if out else None)
        for name, paths in found.items()
        for path in paths
    )


def _apart(paths: Iterable[Path]) -> None:
    """Raise DataError where two photographs of a set have one name without the ending, which images are named by."""
    stems: dict[str, Path] = {}
    for path in paths:
        if stems.setdefault(path.stem, path) != path:
            raise DataError(
                f"{stems[path.stem]} and {path.name} would both become {path.stem}_*.png: rename one of them."
            )


def manifest() -> dict[str, Any]:
    """Return what is known: ``encoders`` (name -> version), ``photographs`` (stem -> hash of clean, and of images)."""
    return dict(json.loads((resources.files("prunekit_mir_l") / "web_v1.json").read_text()))


def make_manifest(paths: Iterable[Path]) -> dict[str, Any]:
    """Return the manifest of these photographs, by the encoders installed here."""
    found = {}
    for path in paths:
        clean = read_rgb(path)
        images = {name: sha256(pixels) for name, pixels in _images(path.stem, clean)}
        found[path.stem] = {"clean": sha256(clean), "images": images}
    return {"encoders": versions(), "photographs": found}


def sha256(pixels: Pixels) -> str:
    """Return the SHA-256 of the pixels' bytes, row by row, RGB."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def encoders() -> str:
    """Return the installed encoders' versions in words, beside those of the manifest where they differ."""
    here = versions()
    told = [
        f"{name} {here.get(name)}" + ("" if here.get(name) == known else f" (manifest: {known})")
        for name, known in manifest()["encoders"].items()
    ]
    return f"encoders: {', '.join(told)}"


def _photographs(root: Path | None) -> dict[str, list[Path]]:
    """Return the clean photographs by the name of their set."""
    if root is None:
        return {"embedded": list(dict.fromkeys(item.target for item in embedded(["web"], []).test))}
    there = sets(root, "test", "denoise") if root.is_dir() else []
    found = {one.folder.name: [scene.target for scene in one.scenes if scene.target] for one in there if one.scenes}
    if not found:
        raise DataError(f"{root} holds no photographs in test/denoise/<SET>/: give the folder that holds test/.")
    return found


def _images(stem: str, clean: Pixels) -> Iterator[tuple[str, Pixels]]:
    for name in web_v1.NAMES:
        yield name, web.apply(web_v1.chain(name, stem), clean)


def _verify(path: Path, entry: dict[str, Any] | None, folder: Path | None) -> Verdict:
    """Compare a photograph and its images with their entry in the manifest, and write them where there is a folder."""
    clean = read_rgb(path)
    others = []
    for name, pixels in _images(path.stem, clean):
        if entry and entry["images"][name] != sha256(pixels):
            others.append(name)
        if folder:
            _save(pixels, folder / "input" / f"{path.stem}_{name}.png")
            _save(clean, folder / "target" / f"{path.stem}_{name}.png")
    if entry is None:
        return Verdict(f"{path.name}: not in the manifest", differs=False)
    if entry["clean"] != sha256(clean):
        why = "another photograph of this name, or decoded otherwise"
        return Verdict(f"{path.name}: its own pixels are not those of the manifest ({why})", differs=True)
    told = f"{len(web_v1.NAMES) - len(others)} of {len(web_v1.NAMES)} images bit-identical"
    return Verdict(f"{path.name}: {told}" + (f"; not {', '.join(others)}" if others else ""), differs=bool(others))


def _folder(out: Path, dataset: str) -> Path:
    return out / "test" / "web" / f"web-v1-{dataset}"


def _save(pixels: Pixels, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
