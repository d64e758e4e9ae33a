"""What a network costs, measured: ``bench`` runs it in every engine at hand, in turn, each in a process of its own."""

from __future__ import annotations

from prunekit.bench.result import Bench, Machine, Row, Size, parse_shape
from prunekit.bench.turns import bench

__all__ = ["Bench", "Machine", "Row", "Size", "bench", "parse_shape"]
