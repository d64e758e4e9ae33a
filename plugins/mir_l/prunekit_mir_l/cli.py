"""``prunekit mir_l``: ``data`` and ``restore``; torch is imported only when a verb needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunekit_mir_l.cli_data import app as data
from prunekit_mir_l.cli_data import shown

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="MIR-L: image restoration tickets.")
app.add_typer(data, name="data")


@app.command("restore")
def restore(
    source: Annotated[Path, typer.Argument(metavar="RUN|FILE", help="A run directory or an exported ticket.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE|FOLDER...", help="Pictures of any size and format.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the restored pictures; names are kept.")],
    stage: Annotated[str | None, typer.Option(help="Name of a run's stage; default the last that is done.")] = None,
    network: Annotated[str | None, typer.Option(help="Name of the network, for plain weights files.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Leave out the zeros; pays from a few images on.")] = False,
    tile: Annotated[int | None, typer.Option(min=16, help="Side of tiles; default: where memory is short.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Write NAME.compare.png beside each.")] = False,
    metrics: Annotated[Path | None, typer.Option(metavar="TARGETS", help="Clean images, to measure against.")] = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave alone what is restored already.")
    ] = False,
) -> None:
    """Restore pictures with a ticket; nothing that exists is overwritten (exit code 2 if any could not be)."""
    from prunekit.native import missing
    from prunekit_mir_l.restore_files import TABLE, plan, restore_files
    from prunekit_mir_l.restorer import load

    if fast and missing():
        typer.echo(f"--fast found no compiled kernels, and every layer stays dense: {missing()}", err=True)
    jobs = plan(images, out, compare=compare, skip_existing=skip_existing)
    table = out / TABLE if metrics else None
    restorer = load(source, stage=stage, network=network, tile=tile, fast=fast)
    failed = False
    with shown() as progress:
        lines = restore_files(restorer, jobs, compare=compare, targets=metrics, table=table, progress=progress)
        for told in lines:
            failed |= told.failed
            typer.echo(told.text, err=told.failed)
    if failed:
        raise typer.Exit(2)
