"""Networks by name, in timm's registry: ``promptir``, ``promptir_small``, ``promptir_tiny``.

This module imports timm, which takes seconds, and nothing else does: import it only where a network is built.
"""

from __future__ import annotations

from typing import Any

import timm
from timm.models import register_model
from torch import nn

from prunekit.errors import RecipeError, nearest
from prunekit_mir_l.promptir import PromptIR

NAMES = ("promptir", "promptir_small", "promptir_tiny")


def build(name: str) -> nn.Module:
    """Return a fresh network, initialised from torch's global generator.

    Args:
        name: one of ``NAMES``, or a restoration network that the caller registered with timm.

    Raises:
        RecipeError: no network has this name.

    Example:
        >>> sum(p.numel() for p in build("promptir_tiny").parameters())
        616986
    """
    if not timm.is_model(name):
        raise RecipeError(f"there is no network {name!r}: {nearest(name, NAMES)}")
    network: nn.Module = timm.create_model(name)
    return network


def _create(pretrained: bool, defaults: dict[str, Any], options: dict[str, Any]) -> PromptIR:
    if pretrained:
        raise RecipeError(
            "no weights come with this network: build it without `pretrained`, then load a checkpoint file "
            "with prunekit.weights.load_weights."
        )
    # timm hands every factory its own bookkeeping beside the options of the network.
    own = {
        key: value
        for key, value in options.items()
        if key not in {"pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
    }
    return PromptIR(**(defaults | own))


def promptir(pretrained: bool = False, **kwargs: Any) -> PromptIR:
    """Return the published network: 35,592,263 parameters, its checkpoints load."""
    return _create(pretrained, {}, kwargs)


def promptir_small(pretrained: bool = False, **kwargs: Any) -> PromptIR:
    """Return half the width and about half the depth: for one GPU, or a patient CPU."""
    small = {
        "width": 24,
        "blocks": (2, 3, 3, 4),
        "refinement": 2,
        "prompt_channels": (32, 64, 128),
        "prompt_sizes": (32, 16, 8),
        "unused": False,
    }
    return _create(pretrained, small, kwargs)


def promptir_tiny(pretrained: bool = False, **kwargs: Any) -> PromptIR:
    """Return one narrow block per level: trains to a useful quality in a minute on two CPU cores."""
    tiny = {
        "width": 12,
        "blocks": (1, 1, 1, 1),
        "refinement": 1,
        "heads": (1, 1, 2, 4),
        "prompt_heads": 2,
        "prompt_channels": (8, 16, 24),
        "prompt_sizes": (16, 8, 4),
        "unused": False,
    }
    return _create(pretrained, tiny, kwargs)


for _factory in (promptir, promptir_small, promptir_tiny):
    register_model(_factory)
