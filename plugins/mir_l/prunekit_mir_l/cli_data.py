"""``prunekit mir_l data prepare | check | web-v1``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from prunekit_mir_l.prepare import Prepared, Progress

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The data folders.")


@app.command("prepare")
def prepare_data(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The folder that a data set was unpacked into.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="The data folder, with train/ and test/.")],
    kind: Annotated[
        str | None, typer.Option("--as", help="rain100, pairs, reside or clean; default by the names.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="train or test; default by the folders' names.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the set; default by the folders' names.")] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the files; default are relative links.")] = False,
    only: Annotated[Path | None, typer.Option("--list", help="A text file: one name to take on each line.")] = None,
) -> None:
    """Put a data set as it is handed out into the published layout (exit code 2 where halves are missing)."""
    from prunekit.errors import DataError
    from prunekit_mir_l.check import still_missing
    from prunekit_mir_l.prepare import prepare

    names = None
    if only is not None:
        try:
            names = [line.strip() for line in only.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as cause:
            raise DataError(f"{only} cannot be read as a list of names: {cause}.") from cause
    gaps = False
    with shown() as progress:
        done = prepare(source, out, kind=kind, split=split, name=name, copy=copy, only=names, progress=progress)
        for one in done:
            gaps |= bool(one.halves or one.unlisted or one.broken)
            for line in _told(one, copy):
                typer.echo(line)
    if lines := still_missing(out):
        typer.echo("Of the paper's data there is still missing: " + "; ".join(lines) + ".")
    if gaps:
        raise typer.Exit(2)


def _told(one: Prepared, copy: bool) -> Iterator[str]:
    how = "copied" if copy else "linked"
    yield f"{one.folder}: taken for {one.kind}; {one.made} files {how}, {one.there} there already"
    if one.cropped:
        yield f"    {one.cropped} clean images are larger than their pairs: their centres are written as PNG"
    for what, names in (
        ("images without their other half", [path.name for path in one.halves]),
        ("names of the list that are not there", list(one.unlisted)),
        ("images that cannot be read, left out", list(one.broken)),
        ("images of low resolution, left out", [path.name for path in one.small]),
        ("files that are no images", [path.name for path in one.others]),
    ):
        if names:
            yield f"    {len(names)} {what}: {', '.join(names[:5])}" + (", ..." if len(names) > 5 else "")


@contextmanager
def shown() -> Iterator[Progress]:
    """Show progress on a terminal, else nothing: a bar for each thing that is worked on, until it is done."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    console = Console(stderr=True)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(escape(what), total=of)
            bar.update(tasks[what], completed=done)
            if done == of:
                bar.remove_task(tasks.pop(what))

        yield progress


@app.command("check")
def check_data(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder with train/ and test/.")],
    patch: Annotated[int, typer.Option(help="Patch side in pixels; smaller training images are named.")] = 64,
    hashes: Annotated[bool, typer.Option("--hashes", help="Compare every file with its set's manifest.")] = False,
) -> None:
    """Count every set against the full one, and name what is missing, unreadable or ill-fitting (exit code 2)."""
    from prunekit_mir_l.check import check, render, still_missing

    report = check(folder, patch=patch, hashes=hashes)
    for line in render(report):
        typer.echo(line)
    if lines := still_missing(folder):
        typer.echo("Of the paper's data there is still missing: " + "; ".join(lines) + ".")
    if report.problems:
        raise typer.Exit(2)


@app.command("web-v1")
def web_data(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="The folder with test/; embedded if none.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Data folder to write the pairs into.")] = None,
) -> None:
    """Make the test set web-v1, and tell for each photograph whether it is the manifest's (exit code 2 if not)."""
    from prunekit_mir_l.web_manifest import encoders, web_set

    verdicts = web_set(folder, out)
    typer.echo(encoders())
    differs = False
    for verdict in verdicts:
        differs |= verdict.differs
        typer.echo(verdict.text)
    if differs:
        typer.echo("Figures on images that differ cannot be compared with those of other machines.", err=True)
        raise typer.Exit(2)
