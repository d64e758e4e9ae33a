"""Put the networks into timm's registry too, as ``promptir``, ``promptir_small``, ``promptir_tiny``.

Importing this module does it, and imports timm, which takes seconds; nothing here needs it otherwise. PruneKit itself
finds the networks in ``prunekit_mir_l.presets``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.models import register_model

from prunekit.errors import RecipeError
from prunekit_mir_l import presets
from prunekit_mir_l.promptir import PromptIR


def _create(preset: Callable[..., PromptIR], pretrained: bool, options: dict[str, Any]) -> PromptIR:
    if pretrained:
        raise RecipeError(
            "no weights come with this network: build it without `pretrained`, then load a checkpoint file "
            "with prunekit.weights.load_weights."
        )
    # timm hands every factory its own bookkeeping beside the options of the network.
    bookkeeping = {"pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
    return preset(**{key: value for key, value in options.items() if key not in bookkeeping})


def promptir(pretrained: bool = False, **kwargs: Any) -> PromptIR:
    """Return `presets.promptir`."""
    return _create(presets.promptir, pretrained, kwargs)


def promptir_small(pretrained: bool = False, **kwargs: Any) -> PromptIR:
    """Return `presets.promptir_small`."""
    return _create(presets.promptir_small, pretrained, kwargs)


def promptir_tiny(pretrained: bool = False, **kwargs: Any) -> PromptIR:
    """Return `presets.promptir_tiny`."""
    return _create(presets.promptir_tiny, pretrained, kwargs)


for _factory in (promptir, promptir_small, promptir_tiny):
    register_model(_factory)
