"""What a network costs, measured: ``bench`` runs it in every engine at hand, in turn, each in a process of its own."""

from __future__ import annotations

from prunekit.bench.curve import break_even, curve
from prunekit.bench.result import Bench, Case, Machine, Row, Size, parse_shape
from prunekit.bench.turns import bench

__all__ = ["Bench", "Case", "Machine", "Row", "Size", "bench", "break_even", "curve", "parse_shape"]
