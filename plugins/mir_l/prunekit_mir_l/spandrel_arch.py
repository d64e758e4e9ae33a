"""Put PromptIR into spandrel's registry, so that its loader recognises published checkpoints.

Needs spandrel (``pip install "prunekit[spandrel]"``); nothing else here does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from spandrel import MAIN_REGISTRY, Architecture, ArchRegistry, ArchSupport, ImageModelDescriptor, SizeRequirements
from spandrel.util import KeyCondition, get_seq_len
from torch import Tensor

from prunekit_mir_l.promptir import PromptIR

WRAPPER = "net."
"""What published checkpoints put before every name."""

LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")


def register_spandrel(registry: ArchRegistry = MAIN_REGISTRY) -> None:
    """Let spandrel's loaders recognise PromptIR, before Restormer, whose names it has too; twice is as once.

    Args:
        registry: spandrel's own, which every loader uses unless told otherwise.

    Example:
        >>> registry = MAIN_REGISTRY.copy()
        >>> register_spandrel(registry)
        >>> "PromptIR" in registry
        True
    """
    support = ArchSupport.from_architecture(PromptIRArch(), before=("Restormer",))
    registry.add(support, ignore_duplicates=True)


@final
class PromptIRArch(Architecture[PromptIR]):  # type: ignore[misc]  # mypy looks into no spandrel
    """PromptIR as spandrel wants an architecture described."""

    def __init__(self) -> None:
        parts = KeyCondition.has_all(
            "patch_embed.proj.weight",
            "prompt1.prompt_param",
            "prompt2.linear_layer.weight",
            "prompt3.conv3x3.weight",
            "noise_level1.attn.temperature",
            "reduce_noise_level3.weight",
            "output.weight",
        )
        super().__init__(id="PromptIR", detect=lambda state: parts(bare(state)))

    def load(self, state_dict: Mapping[str, Tensor]) -> ImageModelDescriptor[PromptIR]:
        """Build the network at the sizes of its weights, and copy them in."""
        state = bare(state_dict)
        options = options_of(state)
        network = PromptIR(**options)
        network.hyperparameters = options  # type: ignore[assignment]  # where spandrel's own networks have theirs
        return ImageModelDescriptor(
            network,
            state,
            architecture=self,
            purpose="Restoration",
            tags=[f"{options['width']}w"],
            supports_half=False,
            supports_bfloat16=True,
            scale=1,
            input_channels=3,
            output_channels=3,
            size_requirements=SizeRequirements(multiple_of=8),
        )


def bare(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the network's entries without the prefix of published checkpoints; as they are where there is none."""
    inside = {name.removeprefix(WRAPPER): tensor for name, tensor in state.items() if name.startswith(WRAPPER)}
    return inside or dict(state)


def options_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the options of `PromptIR` that its weights tell, all of them.

    Args:
        state: name -> tensor, of which the shapes are read.
    """
    prompts = [state[f"prompt{level}.prompt_param"] for level in (1, 2, 3)]
    first_blocks = [state.get(f"{level}.0.attn.temperature") for level in LEVELS]
    return {
        "width": state["patch_embed.proj.weight"].shape[0],
        "blocks": [get_seq_len(state, level) for level in LEVELS],
        "refinement": get_seq_len(state, "refinement"),
        "heads": [1 if temperature is None else temperature.shape[0] for temperature in first_blocks],
        "prompt_heads": state["noise_level1.attn.temperature"].shape[0],
        "prompt_channels": [prompt.shape[2] for prompt in prompts],
        "prompt_sizes": [prompt.shape[3] for prompt in prompts],
        "prompts": prompts[0].shape[1],
        "unused": "chnl_reduce1.weight" in state,
    }
