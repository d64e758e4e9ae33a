"""What a cut did to a network, beside its size: BatchNorm's statistics, and the loss where there are data."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from torch import nn

from prunekit.cli.calibrate import Data, mean_psnr_db
from prunekit.errors import DataError
from prunekit.measure import evaluating
from prunekit.rewind import recalibrate, restore, snapshot


def recalibrated(model: nn.Module, data: Data | None) -> list[str]:
    """Re-estimate BatchNorm's statistics where there is data; return what was done, if there are any."""
    before = snapshot(model)
    try:
        done = recalibrate(model, data.calibration.inputs(model) if data else [])
    except DataError:
        if data:
            raise
        return ["BatchNorm's statistics are the source's: --calibrate DIR re-estimates them"]
    except ValueError as cause:  # torch's, of one value a channel
        restore(model, before)
        return [f"BatchNorm's statistics are the source's, since these data do not allow an estimate: {cause}"]
    return ["BatchNorm's statistics were re-estimated on the calibration inputs"] if done else []


def worth(model: nn.Module, data: Data | None) -> tuple[float, ...]:
    """Return the mean loss, and the PSNR where the loss is a mean squared error; nothing without targets."""
    if data is None or data.calibration.loss is None:
        return ()
    with evaluating(model):
        losses = data.losses(model)
    return (statistics.fmean(losses), *([mean_psnr_db(losses)] if data.squared else []))


def told(data: Data | None, before: tuple[float, ...], after: tuple[float, ...]) -> Iterator[str]:
    """Yield the lines that compare what `worth` returned before a cut and after it."""
    if data and before:
        name = "mean squared error" if data.squared else "mean loss"
        yield f"{name} on the calibration data: {before[0]:.4g} before, {after[0]:.4g} after"
    if data and data.squared:
        yield f"PSNR there, mean of the images: {before[1]:.2f} dB before, {after[1]:.2f} dB after"
