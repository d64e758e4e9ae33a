"""Scores: what each weight is worth, one function per method; higher is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from prunekit.errors import CheckpointError, MaskError
from prunekit.masks import Masks
from prunekit.select import parameters

Scores = Mapping[str, Tensor]
"""Canonical parameter name -> floating-point score of the parameter's shape; higher is kept; may be lazy."""


class Calibration(Protocol):
    """What a scorer may ask of the task; every call starts afresh and gives the same batches."""

    def inputs(self) -> Iterator[Any]:
        """Yield network inputs, on the model's device."""

    def losses(self, model: nn.Module) -> Iterator[Tensor]:
        """Yield scalar losses, one forward pass each, ready for ``backward``."""


Scorer = Callable[[nn.Module, Calibration], Scores]
"""Scores every floating-point parameter it can; ``Unstructured.cut`` puts back whatever it changes in the model."""


@final
@dataclass(frozen=True)
class PerTensor:
    """A scorer that sees one parameter at a time, its name and its values, and neither data nor gradients.

    Its scores are computed when asked for, so the whole network's never exist at once.

    Example:
        >>> largest_first = PerTensor(lambda name, weight: weight.abs())
        >>> largest_first(nn.Linear(2, 1), None)["weight"].shape
        torch.Size([1, 2])
    """

    score: Callable[[str, Tensor], Tensor]

    def __call__(self, model: nn.Module, data: Calibration | None) -> Scores:
        """Return lazy scores of every parameter."""
        return _Lazy(self.score, {name: parameter.detach() for name, parameter in parameters(model).items()})


@final
@dataclass(frozen=True, eq=False)
class _Lazy(Mapping[str, Tensor]):
    score: Callable[[str, Tensor], Tensor]
    weights: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.score(name, self.weights[name])

    def __contains__(self, name: object) -> bool:
        return name in self.weights

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)


def magnitude() -> PerTensor:
    """Score a weight by its absolute value.

    Reference:
        Han et al. 2015, arXiv 1506.02626, section 3; ranked over the whole network as in Frankle & Carbin 2019,
        arXiv 1803.03635.

    Example:
        >>> magnitude()(nn.Linear(3, 2), None)["weight"].min() >= 0
        tensor(True)
    """
    return PerTensor(lambda name, weight: weight.abs())


def random(*, seed: int) -> PerTensor:
    """Score uniformly in [0, 1): the random-pruning control.

    A function of the seed, the parameter's name and its shape, so neither device nor order of parameters matters.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> bool(torch.equal(random(seed=1)(model, None)["weight"], random(seed=1)(model, None)["weight"]))
        True
    """

    def score(name: str, weight: Tensor) -> Tensor:
        return torch.rand(weight.shape, generator=_generator(seed, name), device="cpu")

    return PerTensor(score)


def ticket(masks: Masks | str | Path, *, shuffle: int | None = None) -> PerTensor:
    """Score another run's survivors 1 and the rest 0; cut to that ticket's own density to get its masks back.

    Args:
        masks: the ticket, a safetensors file of its ``Masks.state_dict()``, or a run directory (its last ticket).
        shuffle: seed of a permutation inside each tensor (the shuffled control: same counts, other places).

    Raises:
        CheckpointError: the file cannot be read.
        MaskError: it holds no masks; while scoring, the ticket lacks a parameter or has it in another shape.

    Reference:
        Frankle et al. 2021, arXiv 2009.08576, section 5 (shuffling within layers as an ablation).
    """
    found = masks if isinstance(masks, Masks) else _read(Path(masks))

    def score(name: str, weight: Tensor) -> Tensor:
        if name not in found or found[name].shape != weight.shape:
            raise MaskError(
                f"the ticket has no mask of shape {tuple(weight.shape)} for {name!r}: it is of another network."
            )
        kept = found[name].to(torch.float32)
        if shuffle is None:
            return kept
        order = torch.randperm(kept.numel(), generator=_generator(shuffle, name))
        return kept.flatten()[order].reshape(kept.shape)

    return PerTensor(score)


def _generator(seed: int, name: str) -> torch.Generator:
    key = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "little", signed=True))


def _read(path: Path) -> Masks:
    if path.is_dir():  # a run: the ticket of its last finished stage
        finished = sorted(path.glob("*/done/cut.safetensors"))
        if not finished:
            raise CheckpointError(f"{path} holds no finished stage of a run, so no ticket.")
        path = finished[-1]
    try:
        return Masks.load(load_file(path))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read masks from {path}: {error}.") from error
