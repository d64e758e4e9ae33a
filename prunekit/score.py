"""Scores: what each weight is worth, one function per method; higher is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from prunekit.calibration import Calibration, named
from prunekit.errors import CheckpointError, MaskError, SelectionError
from prunekit.masks import Masks
from prunekit.select import parameters

Scores = Mapping[str, Tensor]
"""Canonical parameter name -> floating-point score of the parameter's shape; higher is kept; may be lazy."""


Scorer = Callable[[nn.Module, Calibration], Scores]
"""Scores every floating-point parameter it can; ``prune`` puts back whatever it changes in the model.

`PerTensor` and `FromData` say more about a scorer, and so make it cheaper; a plain function will do.
"""


@final
@dataclass(frozen=True, repr=False)
class PerTensor:
    """A scorer that sees one parameter at a time, its name and its values, and neither data nor gradients.

    Its scores are computed when asked for, so the whole network's never exist at once.

    Example:
        >>> largest_first = PerTensor(lambda name, weight: weight.abs())
        >>> largest_first(nn.Linear(2, 1), None)["weight"].shape
        torch.Size([1, 2])
        >>> magnitude()
        PerTensor(magnitude)
    """

    score: Callable[[str, Tensor], Tensor]

    def __call__(self, model: nn.Module, data: Calibration | None) -> Scores:
        """Return lazy scores of every parameter."""
        return Lazy(self.score, {name: parameter.detach() for name, parameter in parameters(model).items()})

    def __repr__(self) -> str:
        return f"PerTensor({named(self.score)})"


@final
@dataclass(frozen=True, repr=False)
class FromData:
    """A scorer that looks at data or gradients and leaves every *parameter* as it is, so that none need be copied.

    What else it changes is put back: buffers, gradients, ``requires_grad``, modes, random state.

    Args:
        score: the scoring function.
        times: in how many geometric steps of density ``prune`` reaches the amount, scoring anew before each.
        tracks: whether it wants what training gathers (``Calibration.movement``).
    """

    score: Callable[[nn.Module, Calibration], Scores]
    times: int = 1
    tracks: bool = False

    def __post_init__(self) -> None:
        if self.times < 1:
            raise SelectionError(f"times must be at least 1, not {self.times}: it is a number of small cuts.")

    def __call__(self, model: nn.Module, data: Calibration) -> Scores:
        """Return the scores of one pass."""
        return self.score(model, data)

    def __repr__(self) -> str:
        more = f", times={self.times}" * (self.times > 1) + ", tracks=True" * self.tracks
        return f"FromData({named(self.score)}{more})"


@final
@dataclass(frozen=True, eq=False)
class Lazy(Mapping[str, Tensor]):
    """Scores that are computed from the weights whenever one tensor's are asked for."""

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


def wide(tensor: Tensor) -> Tensor:
    """Return the tensor in float32 if it is narrower: products of gradients leave the range of float16.

    Example:
        >>> wide(torch.ones(1, dtype=torch.float16)).dtype, wide(torch.ones(1, dtype=torch.float64)).dtype
        (torch.float32, torch.float64)
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def magnitude() -> PerTensor:
    """Score a weight by its absolute value.

    Formula:
        s(w) = ``|w|``

    Reference:
        Han et al. 2015, arXiv 1506.02626, section 3; ranked over the whole network as in Frankle & Carbin 2019,
        arXiv 1803.03635.

    Example:
        >>> magnitude()(nn.Linear(3, 2), None)["weight"].min() >= 0
        tensor(True)
    """
    return PerTensor(lambda name, weight: weight.abs())


def lamp() -> FromData:
    """Score a weight's square over the sum of squares of its tensor's weights that are no smaller.

    Ranked over the whole network, this gives each tensor its share: the largest weight of each scores 1, so no tensor
    is emptied before all others are at their last. Of equal weights the first counts as the larger.

    Formula:
        s(w) = ``w² / Σ v²``, summed over the weights v of its tensor with ``|v| ≥ |w|``

    Reference:
        Lee et al. 2021, arXiv 2010.07611, equation 3.

    Example:
        >>> model = nn.Linear(3, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.tensor([[1.0, -3.0, 2.0]]))
        >>> [round(score, 3) for score in lamp()(model, Calibration())["weight"][0].tolist()]  # 1/14, 9/9, 4/13
        [0.071, 1.0, 0.308]
    """

    def score(model: nn.Module, data: Calibration) -> Scores:
        weights = {name: each.detach() for name, each in parameters(model).items() if each.is_floating_point()}
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # sorting takes one thread and lets others run
            scores = pool.map(_lamp, [each.to("cpu").abs().flatten() for each in weights.values()])
            return {name: each.reshape(weights[name].shape) for name, each in zip(weights, scores, strict=True)}

    return FromData(score)


def _lamp(magnitudes: Tensor) -> Tensor:
    """Return the scores of one flat tensor of absolute values."""
    double = magnitudes.dtype == torch.float64
    if double:
        order = magnitudes.sort(descending=True, stable=True).indices.flip(0).numpy()
        squares, spare = np.square(magnitudes.numpy()[order]), np.empty(len(order))
    else:
        # Magnitude above, position from the end below: one sort of whole numbers, many times faster than an argsort.
        # All in place after that, as fresh memory costs more than what is computed in it.
        last = len(magnitudes) - 1
        keys = magnitudes.float().numpy().view(np.int32).astype(np.int64)
        keys <<= 32
        keys |= np.arange(last, -1, -1)
        keys.sort()
        order = keys & 0xFFFFFFFF
        np.subtract(last, order, out=order)
        keys >>= 32
        squares = keys.astype(np.int32).view(np.float32).astype(np.float64)
        squares *= squares
        spare = keys.view(np.float64)
    rest = np.cumsum(squares[::-1], out=spare)[::-1]
    scores = np.empty(len(squares), np.float64 if double else np.float32)
    with np.errstate(invalid="ignore"):  # NaN stays NaN, for whoever ranks to refuse
        scores[order] = np.divide(squares, rest, out=squares, where=rest != 0)
    return torch.from_numpy(scores)


def repeated(scorer: Scorer, *, times: int) -> FromData:
    """Score anew before each of ``times`` geometric steps of density, instead of once for a whole cut.

    Formula:
        s of the given scorer, anew at the densities ``D^(k / times)``, k = 0, 1, ..., times - 1

    Args:
        scorer: one that looks at data, e.g. ``snip()``.
        times: number of small cuts, at least 1.

    Raises:
        SelectionError: the scorer looks at no data, so scoring again would change nothing; or ``times`` is below 1.

    Reference:
        de Jorge et al. 2021, arXiv 2006.09081 (iterative SNIP); the schedule is that of SynFlow, arXiv 2006.05467.

    Example:
        >>> from prunekit.gradients import snip
        >>> repeated(snip(), times=30).times
        30
    """
    if not isinstance(scorer, FromData):
        raise SelectionError("only a scorer that looks at data can be repeated: others give the same scores again.")
    return replace(scorer, times=times)


def random(*, seed: int) -> PerTensor:
    """Score uniformly in [0, 1): the random-pruning control.

    A function of the seed, the parameter's name and its shape, so neither device nor order of parameters matters.

    Formula:
        s(w) = ``u``, drawn from [0, 1)

    Reference:
        The control of Frankle & Carbin 2019, arXiv 1803.03635; Frankle et al. 2021, arXiv 2009.08576.

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

    Formula:
        s(w) = ``1`` where the ticket keeps w, else ``0``

    Args:
        masks: the ticket, a safetensors file of its ``Masks.state_dict()``, or a run directory (its last ticket).
        shuffle: seed of a permutation inside each tensor (the shuffled control: same counts, other places).

    Raises:
        CheckpointError: the file cannot be read.
        MaskError: it holds no masks; while scoring, the ticket lacks a parameter or has it in another shape.

    Reference:
        Frankle et al. 2021, arXiv 2009.08576, section 5 (shuffling within layers as an ablation).
    """
    found = masks if isinstance(masks, Masks) else read_masks(Path(masks))

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


def read_masks(path: Path) -> Masks:
    """Read the masks of a file, or of a run's last finished stage.

    Raises:
        CheckpointError: there are none, or the file is damaged.
        MaskError: it holds something else.
    """
    if path.is_dir():  # a run: the ticket of its last finished stage
        finished = sorted(path.glob("*/done/cut.safetensors"))
        if not finished:
            raise CheckpointError(f"{path} holds no finished stage of a run, so no ticket.")
        path = finished[-1]
    try:
        return Masks.load(load_file(path))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read masks from {path}: {error}.") from error
