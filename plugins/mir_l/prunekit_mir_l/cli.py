"""``prunekit mir_l data check`` and ``prunekit mir_l restore``; torch is imported only when a verb needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="MIR-L: image restoration tickets.")
data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The data folders.")
app.add_typer(data, name="data")


@data.command("check")
def check_data(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder with train/ and test/.")],
    patch: Annotated[int, typer.Option(help="Patch side in pixels; smaller training images are named.")] = 64,
) -> None:
    """Count every set against the full one, and name what is missing, unreadable or ill-fitting (exit code 2)."""
    from prunekit_mir_l.check import check, render

    report = check(folder, patch=patch)
    for line in render(report):
        typer.echo(line)
    if report.problems:
        raise typer.Exit(2)


@data.command("web-v1")
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


@app.command("restore")
def restore(
    source: Annotated[Path, typer.Argument(metavar="RUN|FILE", help="A run directory or an exported ticket.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Files of any common format, any size.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the restored images; names are kept.")],
    stage: Annotated[str | None, typer.Option(help="Name of a run's stage; default the last that is done.")] = None,
    network: Annotated[str | None, typer.Option(help="Name of the network, for plain weights files.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Leave out the zeros; pays from a few images on.")] = False,
) -> None:
    """Restore images with a ticket; nothing that exists is overwritten."""
    from prunekit.native import missing
    from prunekit_mir_l.restore_files import restore_files

    if fast and missing():
        typer.echo(f"--fast found no compiled kernels, and every layer stays dense: {missing()}", err=True)
    for line in restore_files(source, images, out, stage=stage, network=network, fast=fast):
        typer.echo(line)
