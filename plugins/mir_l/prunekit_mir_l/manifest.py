"""``MANIFEST.json`` of a set: where each file came from, its size and its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from prunekit.errors import DataError
from prunekit_mir_l.images import files_below, half_of, is_image

NAME = "MANIFEST.json"
_AT_ONCE = 2000  # files after which the manifest is saved, so that little is hashed again after an interruption


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(
    folder: Path, origin: Mapping[str, str], *, kind: str, progress: Callable[[str, int, int], None]
) -> None:
    """Hash a set's files and write the manifest; a file that it has with the same size and time is not hashed again.

    Args:
        folder: of the set.
        origin: place of each file in it -> what it was called in its source.
        kind: the form of the source.
        progress: is told what is done, how many are, and of how many.
    """
    held = read_manifest(folder)
    files: dict[str, Any] = dict(held.get("files", {}))
    stale = []
    for place in sorted(origin):
        stat = (folder / place).stat()
        seen = {"from": origin[place], "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        if {k: v for k, v in files.get(place, {}).items() if k != "sha256"} != seen:
            stale.append((place, seen))
    todo = iter(stale)
    with ThreadPoolExecutor() as pool:  # hashing leaves Python's lock
        done = 0
        while some := list(islice(todo, _AT_ONCE)):
            for (place, seen), digest in zip(some, pool.map(sha256, (folder / p for p, _ in some)), strict=True):
                files[place] = {**seen, "sha256": digest}
            done += len(some)
            _write(folder, kind, files)
            progress(f"{folder.name}: hashes", done, len(stale))
    if not stale and not held:
        _write(folder, kind, files)


def differing(folder: Path) -> Iterator[str]:
    """Yield what is wrong with a set's files by its manifest: what is missing, changed, or was never in it."""
    if not (folder / NAME).is_file():
        yield f"{folder}: no {NAME}, so its hashes cannot be checked; `prunekit mir_l data prepare` writes one."
        return
    try:
        files = read_manifest(folder)["files"]
    except DataError as error:
        yield str(error)
        return
    present = [place for place in sorted(files) if (folder / place).is_file()]
    with ThreadPoolExecutor() as pool:
        for place, digest in zip(present, pool.map(sha256, (folder / place for place in present)), strict=True):
            if digest != files[place]["sha256"]:
                yield f"{folder / place}: its contents are not those of {NAME}."
    yield from (f"{folder / place}: {NAME} has it, and it is not there." for place in sorted(set(files) - set(present)))
    images = (str(path.relative_to(folder)) for path in files_below(folder) if is_image(path))
    yield from (f"{folder / place}: {NAME} does not have it." for place in images if place not in files)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a set's manifest; nothing where it has none.

    Raises:
        DataError: the file of that name is no such manifest.
    """
    path = folder / NAME
    if not path.is_file():
        return {}
    try:
        held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        whole = all(entry.keys() >= {"from", "bytes", "sha256"} for entry in held["files"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise DataError(
            f"{path} is no manifest of `prunekit mir_l data prepare`, and is left as it is: move it, and prepare the "
            "set again."
        )
    return held


def _write(folder: Path, kind: str, files: Mapping[str, Any]) -> None:
    half = half_of(folder / NAME)
    whole = {"kind": kind, "count": len(files), "files": dict(sorted(files.items()))}
    half.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    half.replace(folder / NAME)
