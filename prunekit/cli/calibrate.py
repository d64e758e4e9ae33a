"""What ``prune`` and ``sensitivity`` share: choosing scorer and tensors, and the data behind ``--calibrate``."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, final

import torch
import yaml
from pydantic import ValidationError
from torch import Tensor, nn

from prunekit.bench.result import parse_shape
from prunekit.calibration import Calibration
from prunekit.cli.options import Origin, Pictures
from prunekit.errors import CheckpointError, DataError, RecipeError, SelectionError
from prunekit.folder import folder_data
from prunekit.imaging import image_call
from prunekit.masks import Masks
from prunekit.recipe import Named, resolve
from prunekit.registry import Registry
from prunekit.score import FromData
from prunekit.select import matching, parameters, prunable
from prunekit.sparse.source import load
from prunekit.sparse.ticket import Ticket
from prunekit.store import read_recipe_file
from prunekit.task import task_data

SIDE = 128
"""Of an input, in pixels, where nobody says it."""


@final
@dataclass(frozen=True)
class Data:
    """Data of a folder or of a run's task.

    Args:
        calibration: batches, and the loss where there are targets.
        told: what it is, in words.
        squared: whether the loss is a mean squared error of images in [0, 1], so that it is a PSNR, too.
    """

    calibration: Calibration
    told: str
    squared: bool = False

    def losses(self, model: nn.Module) -> list[float]:
        """Return every batch's loss; the model is in eval mode, gradients are off."""
        return [float(loss) for loss in self.calibration.losses(model)]


def mean_psnr_db(errors: Sequence[float]) -> float:
    """Return the mean PSNR of images in [0, 1], from the mean squared error of each.

    Example:
        >>> mean_psnr_db([0.001, 0.1])
        20.0
    """
    return statistics.fmean(-10 * math.log10(error) if error else math.inf for error in errors)


def open_source(origin: Origin) -> Ticket:
    """Return a ticket that says of which shape its inputs are: as asked, as its source says, or as its network wants.

    Raises:
        PruneKitError: as `load`; or the network does not run on such an input.
    """
    ticket = load(origin.source, stage=origin.stage, network=origin.network).masked()
    if origin.shape is not None:
        ticket = ticket.taking(parse_shape(origin.shape))
        ticket.output()
        return ticket
    try:
        ticket.output()
        return ticket
    except CheckpointError as refused:
        model = ticket.model()
        try:
            call = image_call(model)
        except RecipeError:
            raise CheckpointError(f"{refused} Say what its inputs are like: --shape 1x3x128x128.") from refused
        return ticket.taking(call.input(model, torch.zeros(1, call.channels, SIDE, SIDE)).shape)


def resolved(kind: str, text: str) -> Any:
    """Build a scorer or an allocation from its name, or from a name with options in braces.

    Raises:
        RecipeError, PluginError: there is no such name or option, or a value is missing or wrong.
    """
    try:
        spec = Named.model_validate(yaml.safe_load(text) if text.lstrip().startswith("{") else text)
        return resolve(kind, spec, Registry.discover(), where=kind)()
    except (RecipeError, ValidationError, yaml.YAMLError) as cause:
        reason = str(cause) if isinstance(cause, RecipeError) else f"{kind}.name is not to be found in it."
        how = f' Here options go as --{kind} "{{name: NAME, KEY: VALUE}}".' if f"{kind}." in reason else ""
        raise RecipeError(f"--{kind} {text}: {reason}{how}") from cause


def choose(ticket: Ticket, model: nn.Module, include: Sequence[str], exclude: Sequence[str]) -> Masks:
    """Return the masks of what may be cut: all that is prunable in the source, unless patterns say otherwise.

    Raises:
        SelectionError: a pattern matches nothing, or nothing is left.
    """
    named = parameters(model)
    names = set(prunable(model, include=include)) if include else set(ticket.masks)
    for pattern in exclude:
        names -= set(matching(pattern, named, "exclude"))
    if not names:
        raise SelectionError("no parameter is left to prune: include more, or exclude less.")
    return Masks(
        {
            name: ticket.masks[name] if name in ticket.masks else torch.ones(each.shape, dtype=torch.bool, device="cpu")
            for name, each in named.items()
            if name in names
        }
    )


def find_data(origin: Origin, model: nn.Module, pictures: Pictures) -> Data | None:
    """Return the data of the folder, else of the task of a run, else None.

    Raises:
        PruneKitError: the folder or the task's data cannot be used, or the network takes no images.
    """
    folder, noise, crop = pictures.folder, pictures.noise, pictures.crop
    if folder is None:
        if noise is not None:
            raise DataError("--noise is added to images: name their folder with --calibrate DIR.")
        return _of_task(Path(origin.source)) if Path(origin.source).is_dir() else None
    data = folder_data(folder, image_call(model), noise=noise, images=pictures.images, crop=crop)
    count = len(list(data.inputs(model)))
    targets = "" if data.loss else ", without targets"
    noisy = "" if noise is None else f", made noisy (sigma {noise:g})"
    told = f"{count} images of {folder}{noisy}{targets}, at most {crop} x {crop} pixels of each"
    return Data(data, told, squared=data.loss is not None)


def about_data(data: Data | None) -> Iterator[str]:
    """Yield the line that says what a scorer may look at, if it is anything."""
    if data:
        yield f"calibration: {data.told}"


def _of_task(run: Path) -> Data:
    recipe = read_recipe_file(run / "recipe.yaml")
    task = resolve("task", recipe.task, Registry.discover(), where="task", given=("seed",))(seed=recipe.seed)
    data = task_data(task, torch.device("cpu"))
    assert callable(data.batches)
    held = list(data.batches())  # once, since they are gone through again and again
    return Data(Calibration(held, data.loss), f"the first {len(held)} training batches of the run's task")


def worded(scorer: str, made: Any, data: Data | None) -> Calibration:
    """Return the data for a scorer; asking it for what is not there is an error in the command line's words.

    Raises:
        SelectionError: the scorer looks at training.
    """
    if isinstance(made, FromData) and made.tracks:
        raise SelectionError(f"--scorer {scorer} looks at training, and nothing is trained here: prunekit run has it.")
    how = "a folder of images with --noise 25, or one that holds input/ and target/"

    def lacking() -> NoReturn:
        raise SelectionError(f"--scorer {scorer} looks at data: add --calibrate DIR ({how} has targets, too).")

    def no_loss(model: nn.Module, x: Any) -> Tensor:
        model(x)  # a scorer that looks at inputs alone catches them here
        raise SelectionError(f"--scorer {scorer} looks at losses, and these images have no targets: give {how}.")

    if data is None:
        return Calibration(lacking, no_loss)
    return data.calibration if data.calibration.loss else Calibration(data.calibration.batches, no_loss)
