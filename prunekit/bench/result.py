"""What a bench finds, as values."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from prunekit.errors import RecipeError

if TYPE_CHECKING:
    from prunekit.measure import Macs

Shape = tuple[int, ...]
REFERENCE = "eager"


def parse_shape(text: str) -> Shape:
    """Read an input shape, with its batch axis.

    Raises:
        RecipeError: not positive integers joined by x.

    Example:
        >>> parse_shape("1x3x128x128")
        (1, 3, 128, 128)
    """
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise RecipeError(f"--shape must be positive integers joined by x, as 1x3x128x128, not {text!r}.")
    return tuple(int(extent) for extent in text.split("x"))


def shape_text(shape: Shape) -> str:
    """Write a shape as ``parse_shape`` reads it."""
    return "x".join(map(str, shape))


@final
@dataclass(frozen=True)
class Size:
    """Number of parameters, and ``kept`` of the ``prunable``; bytes of a dense float32 and of a sparse file."""

    parameters: int
    prunable: int
    kept: int
    bytes_dense: int
    bytes_sparse: int

    @property
    def kept_of_all(self) -> int:
        """Kept parameters and those that no cut may touch."""
        return self.parameters - self.prunable + self.kept


@final
@dataclass(frozen=True)
class Machine:
    """Where it was measured: processor, threads of each engine, name of engine -> version."""

    cpu: str
    threads: int
    versions: Mapping[str, str]


@final
@dataclass(frozen=True)
class Row:
    """One backend at one input shape.

    Args:
        times_ms: a forward pass each, in the order measured; empty where ``failure`` says why.
        peak_mib: most memory of the process during one pass, MiB.
        difference: largest absolute difference of the output from eager's, None where eager has none.
    """

    backend: str
    shape: Shape
    times_ms: tuple[float, ...] = ()
    peak_mib: float | None = None
    difference: float | None = None
    failure: str = ""

    @property
    def quartiles_ms(self) -> tuple[float, float, float]:
        """First quartile, median and third quartile of the times.

        Example:
            >>> Row("eager", (1,), (4.0, 1.0, 2.0, 3.0, 5.0)).quartiles_ms
            (2.0, 3.0, 4.0)
        """
        if len(self.times_ms) == 1:
            return (self.times_ms[0],) * 3
        low, middle, high = statistics.quantiles(self.times_ms, n=4, method="inclusive")
        return low, middle, high


@final
@dataclass(frozen=True)
class Bench:
    """Everything that one bench found; ``missing`` names the backends whose packages are not installed."""

    source: str
    size: Size
    macs: Mapping[Shape, Macs]
    machine: Machine
    rows: tuple[Row, ...]
    missing: tuple[str, ...] = ()
    trained: bool = True

    def speedup(self, row: Row) -> float | None:
        """Return how many times faster than eager at the same shape a row is, by medians; None where either failed."""
        eager = next((other for other in self.rows if (other.backend, other.shape) == (REFERENCE, row.shape)), None)
        if eager is None or not eager.times_ms or not row.times_ms:
            return None
        return eager.quartiles_ms[1] / row.quartiles_ms[1]
