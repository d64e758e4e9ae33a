"""Image networks: how each wants to be called, found by trying, since nothing may wrap a network.

Axes: b batch, c channels, h height, w width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any, final

import torch
from torch import Tensor, nn

from prunekit.errors import DataError, RecipeError
from prunekit.preserve import preserved

SIDES = (1, 2, 3, 4, 6, 7, 8, 12, 14, 16, 24, 28, 32, 48, 56, 64, 96, 112, 128)
"""What is tried as the side of an image, and as what sides must divide by: halvings, and windows of 3, 7 and 8."""


@final
@dataclass(frozen=True)
class ImageCall:
    """How to call a network that turns images into images of the same size; found by `image_call`.

    A value: calling it never changes the network.

    Args:
        channels: of the images that are restored, 1 or 3.
        extra: constant channels that the network wants after them, as a noise-level map; 0 for most.
        multiple: what height and width must divide by.
        output: position of the image where the network returns a tuple or a list; None where it returns a tensor.
        level: what the extra channels hold, in [0, 1].
        minimum: smallest height and width, a multiple of ``multiple``.
        square: whether height and width must be equal.

    Example:
        >>> ImageCall(channels=3, multiple=8)(nn.Identity(), torch.rand(1, 3, 5, 21)).shape
        torch.Size([1, 3, 5, 21])
    """

    channels: int
    extra: int = 0
    multiple: int = 1
    output: int | None = None
    level: float = 15 / 255
    minimum: int = 1
    square: bool = False

    def __call__(self, model: nn.Module, x_bchw: Tensor) -> Tensor:
        """Restore images of any size: pad them, run the network, crop back.

        Args:
            model: the network, in the mode that is wanted.
            x_bchw: float in [0, 1], shape (batch, channels, height, width), each side at least 1; moved to the model's
                device and type.

        Returns:
            The restored images: same shape, the model's device, not clamped.

        Raises:
            DataError: the images have another number of channels.
        """
        height, width = x_bchw.shape[-2:]
        made = model(self.input(model, x_bchw))
        image_bchw: Tensor = made if self.output is None else made[self.output]
        return image_bchw[..., :height, :width]

    def input(self, model: nn.Module, x_bchw: Tensor) -> Tensor:
        """Return what the network itself is given for the images: padded, with the constant channels behind."""
        if x_bchw.shape[-3] != self.channels:
            raise DataError(f"the images have {x_bchw.shape[-3]} channels, and the network restores {self.channels}.")
        like = next(model.parameters(), x_bchw)
        x_bchw = self._padded(x_bchw.to(like.device, like.dtype))
        if not self.extra:
            return x_bchw
        batch, _, height, width = x_bchw.shape
        return torch.cat((x_bchw, x_bchw.new_full((batch, self.extra, height, width), self.level)), 1)

    def _padded(self, x_bchw: Tensor) -> Tensor:
        """Pad on the right and bottom by reflection, however small the image."""
        sides = x_bchw.shape[-2:]
        wanted = [max(side + -side % self.multiple, self.minimum) for side in sides]
        for axis, side, padded in zip((2, 3), sides, [max(wanted)] * 2 if self.square else wanted, strict=True):
            if padded > side:
                # There and back again without repeating the ends; torch's own reflection needs more pixels than it
                # adds.
                period = max(1, 2 * side - 2)
                at = torch.arange(padded, device=x_bchw.device) % period
                x_bchw = x_bchw.index_select(axis, torch.minimum(at, period - at))
        return x_bchw


def image_call(model: nn.Module, *, channels: int | None = None) -> ImageCall:
    """Find out how an image network wants to be called, by trying small images.

    Args:
        model: any network; its modes, buffers, gradients and the random state stay as they are.
        channels: of the images, 1 or 3; None takes 3 where the network does, else 1.

    Raises:
        RecipeError: the network takes no images, or makes none of the same size; says what came out.

    Example:
        >>> call = image_call(nn.Conv2d(2, 1, 3, stride=1, padding=1))
        >>> call.channels, call.extra, call.multiple
        (1, 1, 1)
    """
    wanted = (3, 1) if channels is None else (channels,)
    with preserved(model), torch.no_grad():
        model.eval()
        calls = [ImageCall(*each, square=square) for square in (False, True) for each in product(wanted, (0, 1))]
        for call in calls:
            for side in SIDES:
                x_bchw, made = _tried(model, call, side, 3 * side)
                place = _place(made, x_bchw)
                if place is not None:
                    found = replace(call, output=None if place < 0 else place, minimum=side)
                    return replace(found, multiple=_multiple(model, found))
                if not (call.square or isinstance(made, Exception) or _only_rounded(made, x_bchw)):
                    raise RecipeError(f"{_misfit(model)}: of {_told(x_bchw)} it makes {_told(made)}. {_ADVICE}")
            if call == calls[0]:
                last = made
    if isinstance(last, Exception):
        what = f"{type(last).__name__}: {last}".splitlines()[0]
        raise RecipeError(
            f"{type(model).__name__} takes no images of {' or '.join(map(str, wanted))} channels, of none of the sizes "
            f"tried, up to {SIDES[-1]} x {3 * SIDES[-1]} pixels ({what}). {_ADVICE}"
        )
    raise RecipeError(f"{_misfit(model)}: of each size tried it makes another, in the end {_told(last)}. {_ADVICE}")


_ADVICE = "Name a network that turns images of 1 or 3 channels into images of the same size."


def _misfit(model: nn.Module) -> str:
    return f"{type(model).__name__} does not turn images into images of the same size"


def _tried(model: nn.Module, call: ImageCall, height: int, width: int) -> tuple[Tensor, Any]:
    """Return grey images of a size, and what the network makes of them, or the exception that it raises."""
    like = next(model.parameters(), torch.zeros(()))
    x_bchw = torch.full((1, call.channels, height, height if call.square else width), 0.5).to(like)
    try:
        return x_bchw, model(call.input(model, x_bchw))
    except Exception as cause:  # whatever the network's own code raises
        return x_bchw, cause


def _multiple(model: nn.Module, call: ImageCall) -> int:
    """Return the smallest number that sides above the smallest must divide by; that one is known to do."""
    for multiple in SIDES:
        if multiple < call.minimum and call.minimum % multiple == 0:
            free = replace(call, minimum=1)
            x_bchw, made = _tried(model, free, call.minimum + multiple, call.minimum + 3 * multiple)
            if _place(made, x_bchw) is not None:
                return multiple
    return call.minimum


def _place(made: Any, x_bchw: Tensor) -> int | None:
    """Return where an output holds an image of the input's size: -1 if it is one; None if nowhere."""
    for place, part in enumerate(made) if isinstance(made, (tuple, list)) else [(-1, made)]:
        if isinstance(part, Tensor) and part.shape == x_bchw.shape:
            return place
    return None


def _only_rounded(made: Any, x_bchw: Tensor) -> bool:
    """Tell whether another size of the images could help: they come out with the same channels, not merely scaled."""
    parts = made if isinstance(made, (tuple, list)) else [made]
    images = [part for part in parts if isinstance(part, Tensor) and part.shape[:-2] == x_bchw.shape[:2]]
    height, width = x_bchw.shape[-2:]
    return any(image.shape[-2] * width != image.shape[-1] * height for image in images)


def _told(made: Any) -> str:
    if isinstance(made, Tensor):
        return f"a tensor of shape {tuple(made.shape)}"
    if isinstance(made, (tuple, list)):
        return f"a {type(made).__name__} of {', '.join(_told(part) for part in made[:4]) or 'nothing'}"
    return f"a {type(made).__name__}"
