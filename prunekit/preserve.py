"""Looking at a network without a trace: what a scorer, a measure or a trial run changes in it is put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def preserved(model: nn.Module, *, weights: bool = False) -> Iterator[None]:
    """Put back buffers, gradients, ``requires_grad``, modes and all random state, even after an error.

    Buffers come back as the same tensors, also where a forward pass put others in their place. Inside, the model has
    no gradients.

    Args:
        model: what is looked at; every process and device keeps its own random state.
        weights: whether parameters are copied, too, and put back; whoever promises not to write to them saves that.
    """
    places = [
        (module, name, buffer) for module in model.modules() for name, buffer in module.named_buffers(recurse=False)
    ]
    copied = [*(buffer for _, _, buffer in places), *(model.parameters() if weights else ())]
    tensors = [(tensor, tensor.detach().clone()) for tensor in copied]
    gradients = [(parameter, parameter.grad, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    try:
        for parameter, _, _ in gradients:
            parameter.grad = None
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for module, mode in modes:
            module.training = mode
        for parameter, gradient, required in gradients:
            parameter.grad = gradient
            parameter.requires_grad_(required)
        for module, name, buffer in places:
            setattr(module, name, buffer)
        with torch.no_grad():
            for tensor, before in tensors:
                tensor.copy_(before)
