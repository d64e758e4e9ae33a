"""Options that several verbs have, and what belongs together among them (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

import typer

from prunekit.errors import SelectionError
from prunekit.registry import Registry


def recipe_names(incomplete: str) -> list[str]:
    """Return the registered recipes that begin so, for the shell to complete."""
    return [name for name in Registry.discover().names("recipe") if name.startswith(incomplete)]


Recipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A registered name (see `prunekit list`) or a YAML file.", autocompletion=recipe_names
    ),
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="E.g. task.steps=200 seed=1.")]
TaskOverrides = Annotated[list[str] | None, typer.Argument(metavar="[task.KEY=VALUE]...", help="E.g. task.data=DIR.")]
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
Structured = Annotated[bool, typer.Option("--structured", help="Cut whole channels; the network becomes smaller.")]
Local = Annotated[bool, typer.Option("--local", help="Structured: every group of channels loses the same share.")]
Multiple = Annotated[int | None, typer.Option(min=1, help="Structured: channels are kept in multiples of it.")]
Least = Annotated[int | None, typer.Option(min=1, help="Structured: fewest channels that a group keeps.")]
Device = Annotated[str, typer.Option(help="auto or cpu.")]
Shapes = Annotated[list[str] | None, typer.Option("--shape", help="Of an input, e.g. 1x3x256x256; may be repeated.")]
Backends = Annotated[
    list[str] | None,
    typer.Option(
        "--backend",
        help="eager, eager-heap, compile, onnxruntime, openvino, prunekit-dense or prunekit; repeatable.",
    ),
]
Threads = Annotated[
    list[int] | None, typer.Option("--threads", help="Of every engine; default as PyTorch has it; repeatable.")
]
Densities = Annotated[
    list[float] | None,
    typer.Option(
        "--density", help="Cut each layer by magnitude to so much of it, e.g. 0.1; default as it is; repeatable."
    ),
]


@final
@dataclass(frozen=True)
class Origin:
    """Where a network comes from: as for `prunekit.load`, and the shape of an input where it is to be another."""

    source: str
    stage: str | None
    network: str | None
    shape: str | None


@final
@dataclass(frozen=True)
class Pictures:
    """What ``--calibrate``, ``--noise``, ``--images`` and ``--crop`` say."""

    folder: Path | None
    noise: float | None
    images: int
    crop: int


@final
@dataclass(frozen=True)
class Asked:
    """What ``prunekit prune`` is asked for, whether weights or channels are to go."""

    origin: Origin
    out: Path
    density: float
    scorer: str
    of: str | None
    exclude: Sequence[str]
    pictures: Pictures


def leave_out(given: Mapping[str, object], reason: str) -> None:
    """Refuse the first option that was given.

    Args:
        given: option -> value; None, False and nothing at all where it was not given.
        reason: a clause that the message begins with.

    Raises:
        SelectionError: one was.
    """
    for option, value in given.items():
        if value:
            raise SelectionError(f"{reason}: leave {option} out.")
