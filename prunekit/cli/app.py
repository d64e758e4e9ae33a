"""Every verb's signature and help; the work is imported when a verb runs, so that help stays fast (no torch here)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunekit.errors import PluginError
from prunekit.registry import Entry, Registry

Recipe = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A registered name (see `prunekit list`) or a YAML file.")
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="E.g. task.steps=200 seed=1.")]
Source = Annotated[
    str, typer.Argument(metavar="RUN|FILE|NAME", help="A run directory, a file of weights, or a network's name.")
]
Stage = Annotated[str | None, typer.Option(help="Name of a run's stage; default the last that is done.")]
Network = Annotated[
    str | None, typer.Option(help="The network, for plain weights or files that you trust: a name or {name: ..., ...}.")
]
InputShape = Annotated[str | None, typer.Option("--shape", help="Of an input, e.g. 1x1x64x64; default the source's.")]
Scorer = Annotated[str, typer.Option(help="A name (`prunekit list`), or with options {name: random, seed: 1}.")]
Include = Annotated[
    list[str] | None, typer.Option("--include", help="Glob of parameters to cut, instead of the usual; repeatable.")
]
Exclude = Annotated[list[str] | None, typer.Option("--exclude", help="Glob of parameters to leave alone; repeatable.")]
Calibrate = Annotated[
    Path | None, typer.Option("--calibrate", metavar="DIR", help="A folder of images, or of input/ and target/.")
]
Noise = Annotated[
    float | None, typer.Option("--noise", metavar="SIGMA", help="Add noise, of 0..255, and take the images as targets.")
]
Images = Annotated[int, typer.Option("--images", min=1, help="How many images are read at most.")]
Crop = Annotated[int, typer.Option("--crop", min=1, help="Pixels a side that are cut from an image's centre at most.")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]


def build(registry: Registry) -> typer.Typer:
    """Return the program, with the commands of installed plugins."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.callback()(prunekit)
    for verb in (run, plan, show, cp, report, prune, sensitivity, export, inspect, bench):
        app.command()(verb)
    app.command("list")(list_)
    app.command("eval")(evaluate)
    for name in registry.names("command"):
        app.add_typer(_plugin(registry.find("command", name)), name=name)
    return app


def _plugin(entry: Entry) -> typer.Typer:
    try:
        loaded: typer.Typer = entry.load()
        return loaded
    except PluginError as error:  # the other verbs must go on working
        message = str(error)

        def fail() -> None:
            raise PluginError(message)

        broken = typer.Typer()
        broken.callback(invoke_without_command=True, help="(broken: call it to see why)")(fail)
        return broken


def prunekit(
    version: Annotated[bool, typer.Option("--version", help="Show the version.", is_eager=True)] = False,
) -> None:
    """Find, train and ship lottery tickets of PyTorch networks."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"prunekit {installed('prunekit')}")
        raise typer.Exit


def run(
    recipe: Recipe,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/RECIPE-HASH.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Put an existing run aside and start again.")] = False,
    device: Annotated[str, typer.Option(help="auto or cpu.")] = "auto",
    drift: Annotated[bool, typer.Option("--drift", help="Continue although torch, device or data changed.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only the final table.")] = False,
) -> None:
    """Train, prune, rewind, evaluate and report; the same command continues what was interrupted."""
    from prunekit.cli.run import run_recipe

    run_recipe(recipe, overrides or [], out=out, fresh=fresh, device=device, drift=drift, quiet=quiet)


def plan(recipe: Recipe, overrides: Overrides = None) -> None:
    """Show the stages, the densities to come, and about how long they will take; writes nothing."""
    from prunekit.cli.inform import show_plan

    show_plan(recipe, overrides or [])


def list_() -> None:
    """List recipes, tasks, networks, pruners, scorers, allocations, strategies, schedules and commands."""
    from prunekit.cli.inform import show_registry

    show_registry()


def show(recipe: Recipe) -> None:
    """Print a recipe."""
    from prunekit.recipe import recipe_text

    typer.echo(recipe_text(recipe, Registry.discover()).rstrip())


def cp(recipe: Recipe, file: Annotated[Path, typer.Argument(help="Where to put the copy; never overwritten.")]) -> None:
    """Copy a recipe to a file of your own, to edit and run."""
    from prunekit.cli.inform import copy_recipe

    copy_recipe(recipe, file)


def evaluate(
    run: RunDir,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[task.KEY=VALUE]...", help="E.g. task.data=DIR.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Name of a stage; default the last that is done.")] = None,
    device: Annotated[str, typer.Option(help="auto or cpu.")] = "auto",
) -> None:
    """Measure a run's ticket again, on its own test data or other; writes nothing."""
    from prunekit.cli.evaluate import evaluate_run

    evaluate_run(run, overrides or [], stage=stage, device=device)


def report(run: RunDir, out: Annotated[Path | None, typer.Option(help="Folder; default RUN/report.")] = None) -> None:
    """Write Markdown, CSV and plots of a run, finished or not."""
    from prunekit.report import write_report

    for path in write_report(run, out):
        typer.echo(str(path))


def prune(
    source: Source,
    density: Annotated[float, typer.Option("--density", help="Share to keep, e.g. 0.1.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The ticket file to write; never overwritten.")],
    scorer: Scorer = "magnitude",
    allocation: Annotated[str, typer.Option(help="A name, or with options {name: erk, min_keep: 1}.")] = "everywhere",
    of: Annotated[str, typer.Option("--of", help="The density is a share of: prunable, all or macs.")] = "prunable",
    include: Include = None,
    exclude: Exclude = None,
    calibrate: Calibrate = None,
    noise: Noise = None,
    images: Images = 16,
    crop: Crop = 128,
    shape: InputShape = None,
    stage: Stage = None,
    network: Network = None,
) -> None:
    """Cut a trained network once, without training, and write the ticket."""
    from prunekit.cli.prune import prune_source

    prune_source(
        source,
        out,
        density=density,
        of=of,
        scorer=scorer,
        allocation=allocation,
        include=include or [],
        exclude=exclude or [],
        calibrate=calibrate,
        noise=noise,
        images=images,
        crop=crop,
        stage=stage,
        network=network,
        shape=shape,
    )


def sensitivity(
    source: Source,
    densities: Annotated[str, typer.Option(help="Shares to keep of each tensor.")] = "0.5,0.2,0.1",
    scorer: Scorer = "magnitude",
    include: Include = None,
    exclude: Exclude = None,
    calibrate: Calibrate = None,
    noise: Noise = None,
    images: Images = 16,
    crop: Crop = 128,
    csv: Annotated[Path | None, typer.Option("--csv", help="Where to write all columns; never overwritten.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Where to draw it; .png or .svg.")] = None,
    shape: InputShape = None,
    stage: Stage = None,
    network: Network = None,
) -> None:
    """Cut each tensor alone at several densities, and show what that costs, the most sensitive first."""
    from prunekit.cli.sensitivity import show_sensitivity

    show_sensitivity(
        source,
        densities=densities,
        scorer=scorer,
        include=include or [],
        exclude=exclude or [],
        calibrate=calibrate,
        noise=noise,
        images=images,
        crop=crop,
        file=csv,
        plot=plot,
        stage=stage,
        network=network,
        shape=shape,
    )


def export(
    source: Source,
    out: Annotated[Path, typer.Option("-o", "--out", help="The file to write; never overwritten.")],
    form: Annotated[str, typer.Option("--format", help="sparse (small), dense (safetensors) or onnx.")] = "sparse",
    dtype: Annotated[str | None, typer.Option(help="float16 or bfloat16: half the bytes, with loss.")] = None,
    compact: Annotated[bool, typer.Option("--compact", help="Remove channels that can never matter.")] = False,
    shape: InputShape = None,
    stage: Stage = None,
    network: Network = None,
) -> None:
    """Write a ticket as one file: small, or for other programs; what was written is read back and compared."""
    from prunekit.cli.export import export_ticket

    export_ticket(source, out, form=form, dtype=dtype, compact=compact, stage=stage, network=network, shape=shape)


def inspect(
    source: Source,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, for programs.")] = False,
    shape: InputShape = None,
    stage: Stage = None,
    network: Network = None,
) -> None:
    """Print each tensor's shape, density, bytes, multiply-adds and dead channels, and the totals."""
    from prunekit.cli.inspect import inspect_source

    inspect_source(source, as_json=as_json, stage=stage, network=network, shape=shape)


def bench(
    source: Source,
    shapes: Annotated[
        list[str] | None, typer.Option("--shape", help="Of an input, e.g. 1x3x256x256; may be repeated.")
    ] = None,
    backends: Annotated[
        list[str] | None,
        typer.Option(
            "--backend",
            help="eager, eager-heap, compile, onnxruntime, openvino, prunekit-dense or prunekit; repeatable.",
        ),
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option("--threads", help="Of every engine; default as PyTorch has it; repeatable.")
    ] = None,
    densities: Annotated[
        list[float] | None,
        typer.Option(
            "--density", help="Cut each layer by magnitude to so much of it, e.g. 0.1; default as it is; repeatable."
        ),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Passes measured of each.")] = 7,
    csv: Annotated[Path | None, typer.Option("--csv", help="Where to write all columns; never overwritten.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Where to draw speed-up against density; .png or .svg.")
    ] = None,
    stage: Stage = None,
    network: Network = None,
) -> None:
    """Measure what a network costs in every engine at hand, interleaved: latency, memory, bytes, multiply-adds."""
    from prunekit.cli.bench import show_bench

    show_bench(
        source,
        stage=stage,
        network=network,
        shapes=shapes or [],
        backends=backends or [],
        threads=threads or [],
        densities=densities or [],
        runs=runs,
        file=csv,
        plot=plot,
    )
