"""Run a restoration network on images of any size.

Axes: b batch, c channels, h height, w width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MULTIPLE = 8
"""The network halves height and width three times, so both must divide by this."""


def restore_image(model: nn.Module, x_bchw: Tensor) -> Tensor:
    """Restore images of any size: pad by reflection on the right and bottom, run the network, crop back.

    Args:
        model: a network of images; put it in eval mode first.
        x_bchw: float in [0, 1], shape (batch, 3, height, width), each side at least 1; moved to the model's device and
            type.

    Returns:
        The restored images: same shape, the model's device, not clamped.

    Example:
        >>> restore_image(nn.Identity(), torch.rand(1, 3, 5, 21)).shape
        torch.Size([1, 3, 5, 21])
    """
    like = next(model.parameters(), x_bchw)
    x_bchw = x_bchw.to(like.device, like.dtype)
    height, width = x_bchw.shape[-2:]
    output: Tensor = model(reflect(x_bchw))
    return output[..., :height, :width]


def reflect(x_bchw: Tensor) -> Tensor:
    """Pad on the right and bottom to multiples of 8 by reflection, however small the image."""
    for axis in (2, 3):
        side = x_bchw.shape[axis]
        if side % MULTIPLE:
            # There and back again without repeating the ends; torch's own reflection needs more pixels than it adds.
            period = max(1, 2 * side - 2)
            at = torch.arange(side + -side % MULTIPLE, device=x_bchw.device) % period
            x_bchw = x_bchw.index_select(axis, torch.minimum(at, period - at))
    return x_bchw
