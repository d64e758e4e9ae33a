"""What a bench finds, as values."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

from prunekit.errors import RecipeError

if TYPE_CHECKING:
    from prunekit.measure import Macs
    from prunekit.sparse.before import Before

Shape = tuple[int, ...]
Setting = tuple[Shape, int]
"""An input's shape and a number of threads: what rows must share to be compared."""
REFERENCE = "eager"
SPARSE, DENSE = "prunekit", "prunekit-dense"
"""Our backends: on the cut network, and on the same network with nothing cut."""


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

    @property
    def density(self) -> float:
        """Share of the prunable ones that is kept; 1 where there are none."""
        return self.kept / self.prunable if self.prunable else 1.0


@final
@dataclass(frozen=True)
class Machine:
    """Where it was measured: processor, name of engine -> version."""

    cpu: str
    versions: Mapping[str, str]


@final
@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Args:
        backend: its name.
        shape: of the input.
        threads: of the engine.
        density: as asked for, a key of ``Bench.sizes``; the source's own where the source runs as it is.
    """

    backend: str
    shape: Shape
    threads: int
    density: float

    @property
    def setting(self) -> Setting:
        """What it shares with those that it is compared with."""
        return self.shape, self.threads

    @property
    def reference(self) -> Case:
        """Eager PyTorch on the very same network, whose output counts as right."""
        return replace(self, backend=REFERENCE)

    def __str__(self) -> str:
        cut = f" {self.density:.3g}" if self.backend == SPARSE else ""
        return f"{self.backend}{cut} at {setting_text(self.setting)}"


def setting_text(setting: Setting) -> str:
    """Write a setting as a reader likes it.

    Example:
        >>> setting_text(((1, 3, 8, 8), 2))
        '1x3x8x8, 2 threads'
    """
    shape, threads = setting
    return f"{shape_text(shape)}, {threads} thread{'s' * (threads > 1)}"


@final
@dataclass(frozen=True)
class Row:
    """What was found of a case.

    Args:
        times_ms: a forward pass each, in the order measured; empty where ``failure`` says why.
        peak_mib: most memory of the process during one pass, MiB.
        difference: largest absolute difference of the output from eager's on the same network, None where eager
            has none.
    """

    case: Case
    times_ms: tuple[float, ...] = ()
    peak_mib: float | None = None
    difference: float | None = None
    failure: str = ""

    @property
    def quartiles_ms(self) -> tuple[float, float, float]:
        """First quartile, median and third quartile of the times.

        Example:
            >>> Row(Case("eager", (1,), 1, 1.0), (4.0, 1.0, 2.0, 3.0, 5.0)).quartiles_ms
            (2.0, 3.0, 4.0)
        """
        if len(self.times_ms) == 1:
            return (self.times_ms[0],) * 3
        low, middle, high = statistics.quantiles(self.times_ms, n=4, method="inclusive")
        return low, middle, high

    def faster_than(self, other: Row | None) -> float | None:
        """Return how many times faster it is than another, by medians; None where either failed."""
        if other is None or not other.times_ms or not self.times_ms:
            return None
        return other.quartiles_ms[1] / self.quartiles_ms[1]


@final
@dataclass(frozen=True)
class Bench:
    """Everything that one bench found.

    Args:
        source: what was measured.
        sizes: density as asked -> the network cut to it; 1 also where nothing was asked but `DENSE` ran.
        macs: shape and density as asked -> multiply-adds.
        machine: where.
        rows: one for each case, in the order of the tables.
        missing: names of the backends whose packages are not installed.
        trained: False for fresh weights.
        before: the network before channels were removed, if any were.
    """

    source: str
    sizes: Mapping[float, Size]
    macs: Mapping[tuple[Shape, float], Macs]
    machine: Machine
    rows: tuple[Row, ...]
    missing: tuple[str, ...] = ()
    trained: bool = True
    before: Before | None = None

    def by_setting(self) -> dict[Setting, list[Row]]:
        """Return the rows of each table."""
        tables: dict[Setting, list[Row]] = {}
        for row in self.rows:
            tables.setdefault(row.case.setting, []).append(row)
        return tables

    def eager(self, setting: Setting) -> Row | None:
        """Return the row of eager PyTorch."""
        return next((row for row in self.by_setting()[setting] if row.case.backend == REFERENCE), None)

    def best_dense(self, setting: Setting) -> Row | None:
        """Return the fastest row, by median, of an engine that multiplies with zeros; None where none was measured."""
        rows = [row for row in self.by_setting()[setting] if row.case.backend not in (SPARSE, DENSE) and row.times_ms]
        return min(rows, key=lambda row: row.quartiles_ms[1], default=None)
