"""Every verb's signature and help; the work is imported when a verb runs, so that help stays fast (no torch here)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunekit.cli.options import (
    Asked,
    Backends,
    Calibrate,
    Crop,
    Densities,
    Device,
    Exclude,
    Images,
    Include,
    InputShape,
    Least,
    Local,
    Multiple,
    Network,
    Noise,
    Origin,
    Overrides,
    Pictures,
    Recipe,
    RunDir,
    Scorer,
    Shapes,
    Source,
    Stage,
    Structured,
    TaskOverrides,
    Threads,
    leave_out,
)
from prunekit.cli.runs import AsJson, Curves, doctor, report, runs
from prunekit.cli.study_verb import study
from prunekit.errors import PluginError
from prunekit.registry import Entry, Registry


def build(registry: Registry) -> typer.Typer:
    """Return the program, with the commands of installed plugins."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.callback()(prunekit)
    for verb in (run, study, plan, show, cp, report, prune, sensitivity, export, inspect, bench, runs, doctor):
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


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"prunekit {version('prunekit')}")
        raise typer.Exit


def prunekit(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Find, train and ship lottery tickets of PyTorch networks."""


def run(
    recipe: Recipe,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/RECIPE-HASH.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Put an existing run aside and start again.")] = False,
    device: Device = "auto",
    drift: Annotated[bool, typer.Option("--drift", help="Continue although torch, device or data changed.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only the final table.")] = False,
    dense: Annotated[
        Path | None, typer.Option("--dense", metavar="RUN", help="Take over the dense stage of a run that has it.")
    ] = None,
    tensorboard: Curves = False,
    as_json: AsJson = False,
) -> None:
    """Train, prune, rewind, evaluate and report; the same command continues what was interrupted."""
    from prunekit.cli.run import run_recipe
    from prunekit.launch import Asked as Wanted

    wanted = Wanted(out, fresh, device, drift, dense, tensorboard)
    run_recipe(recipe, overrides or [], wanted, quiet=quiet, as_json=as_json)


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
    overrides: TaskOverrides = None,
    stage: Annotated[str | None, typer.Option(help="Name of a stage; default the last that is done.")] = None,
    device: Device = "auto",
) -> None:
    """Measure a run's ticket again, on its own test data or other; writes nothing."""
    from prunekit.cli.evaluate import evaluate_run

    evaluate_run(run, overrides or [], stage=stage, device=device)


def prune(
    source: Source,
    density: Annotated[float, typer.Option("--density", help="Share to keep, e.g. 0.1.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The ticket file to write; never overwritten.")],
    structured: Structured = False,
    scorer: Scorer = "magnitude",
    allocation: Annotated[
        str | None, typer.Option(help="A name, or with options {name: erk, min_keep: 1}; default everywhere.")
    ] = None,
    of: Annotated[str | None, typer.Option("--of", help="The density is a share of: prunable, all or macs.")] = None,
    include: Include = None,
    exclude: Exclude = None,
    local: Local = False,
    multiple: Multiple = None,
    least: Least = None,
    calibrate: Calibrate = None,
    noise: Noise = None,
    images: Images = 16,
    crop: Crop = 128,
    shape: InputShape = None,
    stage: Stage = None,
    network: Network = None,
) -> None:
    """Cut a trained network once, without training, and write the ticket."""
    origin, pictures = Origin(source, stage, network, shape), Pictures(calibrate, noise, images, crop)
    asked = Asked(origin, out, density, scorer, of, exclude or [], pictures)
    if structured:
        leave_out({"--allocation": allocation, "--include": include}, "--structured cuts channels out of all tensors")
        from prunekit.cli.prune_channels import prune_channels

        prune_channels(asked, local=local, multiple=multiple or 1, least=least or 1)
    else:
        only = {"--local": local, "--multiple": multiple, "--least": least}
        leave_out(only, "without --structured single weights are cut, and no channels")
        from prunekit.cli.prune import prune_weights

        prune_weights(asked, allocation=allocation or "everywhere", include=include or [])


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
        Origin(source, stage, network, shape),
        Pictures(calibrate, noise, images, crop),
        densities=densities,
        scorer=scorer,
        include=include or [],
        exclude=exclude or [],
        file=csv,
        plot=plot,
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
    shapes: Shapes = None,
    backends: Backends = None,
    threads: Threads = None,
    densities: Densities = None,
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
