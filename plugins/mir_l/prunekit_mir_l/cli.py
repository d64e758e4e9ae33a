"""``prunekit mir_l``: ``data`` and ``restore``; torch is imported only when a verb needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunekit_mir_l.cli_data import app as data

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="MIR-L: image restoration tickets.")
app.add_typer(data, name="data")


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
