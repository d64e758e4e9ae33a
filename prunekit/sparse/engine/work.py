"""Work: the memory that one call of a plan works in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.fx import Node

from prunekit.sparse.engine.few import Buffer, Few, Value
from prunekit.sparse.engine.maps import Map
from prunekit.sparse.engine.memory import ALIGNED
from prunekit.sparse.engine.program import Program, pointers


@final
class Work:
    """What one call works in; calls at the same time have one each.

    Args:
        places: first float of each map between chains, [n][h][c][w], of each sink, and of results of few numbers.
        size: their floats.
        floats: of all together.
        programs: that will run.
        few: what will be computed of few numbers.
        threads: that they will run on.
    """

    def __init__(
        self,
        places: Mapping[Map | Buffer, int],
        size: Callable[[Map | Buffer], int],
        floats: int,
        programs: Sequence[Program],
        few: Sequence[Few],
        threads: int,
    ) -> None:
        self._block = _aligned(floats)
        self._scratch = _aligned(threads * max((program.scratch for program in programs), default=0))
        self._threads = threads
        self.maps = {map: self._block[at : at + size(map)] for map, at in places.items()}
        self._views: dict[Node, Tensor] = {}
        self._pointers: dict[Program | Few, Any] = {}
        for program in programs:
            ours = [self.maps.get(map) for map in (*program.inputs, *program.outputs, *program.sinks)]
            self._pointers[program] = pointers([*ours, *(None for _ in program.matrices)])
        for each in few:
            self._pointers[each] = pointers([self._base(base) for base in each.bases])

    def _base(self, base: Map | Buffer | Node | Tensor) -> Tensor | None:
        return self.maps.get(base) if isinstance(base, Map | Buffer) else base if isinstance(base, Tensor) else None

    def compute(self, few: Few, theirs: Sequence[tuple[int, Tensor]]) -> None:
        """Compute on what is here and on tensors of torch's, contiguous, each with the number of its base."""
        bases = self._pointers[few]
        for place, tensor in theirs:
            bases[place] = tensor.data_ptr()
        few(bases)

    def look(self, value: Value) -> Tensor:
        """Return a value that lies here."""
        assert isinstance(value.base, Map | Buffer)
        base, look = self.maps[value.base], value.look
        return base.as_strided(look.size(), look.stride(), base.storage_offset() + look.storage_offset())

    def run(self, program: Program, theirs: Sequence[tuple[int, Tensor]]) -> None:
        """Run a program on what is here and on tensors of torch's, contiguous, each with its number."""
        pointers = self._pointers[program]
        for place, tensor in theirs:
            pointers[place] = tensor.data_ptr()
        program(pointers, self._scratch.data_ptr(), self._threads)

    def seen(self, what: Node, make: Callable[[], Tensor]) -> Tensor:
        """Return what ``make`` does; a view of what lies here is made once, and shows what later calls write."""
        if what in self._views:
            return self._views[what]
        value = make()
        if self.holds(value):
            self._views[what] = value
        return value

    def holds(self, value: Tensor) -> bool:
        """Return whether a tensor lies here, where the next call writes."""
        return value.untyped_storage().data_ptr() == self._block.untyped_storage().data_ptr()


def _aligned(floats: int) -> Tensor:
    """Return memory that begins with a cache line."""
    whole = torch.empty(floats + ALIGNED, dtype=torch.float32, device="cpu")
    return whole[-(whole.data_ptr() // 4) % ALIGNED :][:floats]
