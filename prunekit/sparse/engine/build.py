"""Build: the plan of a network for one input shape, each part of it the fastest way that was measured."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node

from prunekit.environment import Holes
from prunekit.sparse.engine.found import Found, aten, operands
from prunekit.sparse.engine.join import join
from prunekit.sparse.engine.maps import SPARSE_ENOUGH, Kind, Map, density
from prunekit.sparse.engine.plan import Plan
from prunekit.sparse.engine.program import Program, cuts, pointers
from prunekit.sparse.engine.recognise import recognise
from prunekit.sparse.engine.rings import Cut
from prunekit.sparse.engine.stages import Chain, Needs, chains, needs, reads, worth
from prunekit.sparse.engine.trace import Traced, trace
from prunekit.sparse.engine.tune import Memo, race
from prunekit.sparse.products import Convolution, Geometry, Product

GAIN = 0.97
"""Ours is taken where it needs at most this share of torch's time."""


def build(model: nn.Module, example: Tensor, memo: Memo) -> Plan:
    """Return the plan of a network in eval mode for inputs of this shape, with as many threads as torch has.

    Args:
        model: float32 on the CPU.
        example: an input, float32 of shape (n, ...); its values don't matter.
        memo: where measurements are remembered.

    Returns:
        The plan; its weights are those that the model has now.

    Raises:
        Exception: the network cannot be traced; see `trace`.
    """
    example = example.contiguous()
    with torch.no_grad():
        traced = trace(model, example)
        seconds = _node_seconds(traced, example)
        torches: frozenset[Node] = frozenset()
        while True:
            found = recognise(traced.graph, traced.constants, torches)
            needed = needs(traced.graph, found)
            _choose_dense(needed, memo)
            join(found, needed)
            programs, refused = _programs(traced, found, needed, seconds, memo)
            if not refused:
                break
            torches |= refused
        layers = {node: layer for node in needed.nodes if (layer := _layer(node, traced, seconds, memo))}
        memo.save()
        return Plan(traced, found, needed, programs, layers)


@final
class _Stopwatch(Interpreter):
    """Runs a graph, and notes the seconds of each node that is not a constant."""

    def __init__(self, traced: Traced) -> None:
        super().__init__(nn.Module(), graph=traced.graph)
        self._constants = traced.constants
        self.seconds: dict[Node, float] = {}
        self._holes = Holes()

    def run_node(self, n: Node) -> Any:
        if n in self._constants:
            return self._constants[n]
        if n.op != "call_function":
            return super().run_node(n)
        result: list[Any] = []

        def run() -> None:
            result.clear()  # its memory serves the next one
            result.append(super(_Stopwatch, self).run_node(n))

        self.seconds[n] = race([run], rounds=2)[0]
        if isinstance(result[0], Tensor):
            self._holes.add(result[0].nbytes)
        return result[0]


def _node_seconds(traced: Traced, example: Tensor) -> dict[Node, float]:
    """Return how long torch takes for each node."""
    watch = _Stopwatch(traced)
    watch.run(example)
    return watch.seconds


def _programs(
    traced: Traced, found: Found, needed: Needs, seconds: dict[Node, float], memo: Memo
) -> tuple[dict[Chain, Program], frozenset[Node]]:
    """Return a program for each chain, and the nodes that torch computes faster."""
    groups = chains(traced.graph, found, needed)
    for chain in groups:
        for map, (low, high) in reads(chain).items():
            if map.kind != Kind.LOAD:
                needed.store(map, low, high - low)
    covers = {map: set(nodes) for map, nodes in found.origin.items()}
    for node, view in found.views.items():
        for part in view if isinstance(view, list) else [view]:
            if part is not None:
                covers.setdefault(part.map, set()).add(node)
    programs, refused = {}, set()
    for chain in groups:
        nodes = set().union(*(covers[map] for map in chain.maps))
        ours_s, cut = _best_cut(chain, needed, memo) if worth(chain) else (float("inf"), None)
        if cut is not None and ours_s < GAIN * sum(seconds.get(node, 0.0) for node in nodes):
            programs[chain] = Program(chain, needed.stored, cut)
        else:
            refused |= set().union(*(found.origin[map] for map in chain.maps))
    return programs, frozenset(refused)


def _best_cut(chain: Chain, needed: Needs, memo: Memo) -> tuple[float, Cut]:
    """Return the fastest way to cut a chain, after the seconds that it takes."""
    options = cuts(chain, torch.get_num_threads())
    stored = {map: needed.stored[map] for map in chain.maps if map in needed.stored}
    what = [(map.kind.name, map.shape, map.mode, map.inputs, _weight(map)) for map in chain.maps]

    def ways() -> list[Callable[[], Any]]:
        return [_rehearsal(Program(chain, needed.stored, cut)) for cut in options]

    measured = memo.seconds((what, sorted(stored.values()), options), ways)
    return min(zip(measured, options, strict=True), key=lambda pair: pair[0])


def _rehearsal(program: Program) -> Callable[[], Any]:
    """Return the program on noise."""
    threads = torch.get_num_threads()
    sizes = [map.shape[0] * map.channels * map.shape[2] * map.shape[3] for map in (*program.inputs, *program.outputs)]
    sizes += [program.items * map.size for map in program.sinks]
    sizes += [map.shape[0] * map.channels * max(map.inputs, 1) for map in program.matrices]
    tensors = [torch.rand(size, dtype=torch.float32) for size in sizes]
    scratch = torch.empty(threads * program.scratch, dtype=torch.float32)
    addresses = pointers(tensors)

    def run() -> tuple[Any, ...]:
        program(addresses, scratch.data_ptr(), threads)
        return tensors, scratch  # which live as long as this function

    return run


def _weight(map: Map) -> tuple[float, tuple[int, ...]] | None:
    """Return the density and the shape of a map's weight."""
    return (round(density(map.weight), 2), tuple(map.weight.shape)) if map.weight is not None else None


def _choose_dense(needed: Needs, memo: Memo) -> None:
    """Make 1x1 convolutions dense where that is faster."""
    for map in needed.maps:
        if map.kind != Kind.SPARSE or map.weight is None or map.weight.shape[2] > 1:
            continue
        sparse_s, dense_s = memo.seconds(("1x1", _weight(map)), partial(_both, map))
        if dense_s < sparse_s:
            map.kind = Kind.DENSE


def _both(map: Map) -> list[Callable[[], Any]]:
    """Return a 1x1 convolution of 2048 pixels as a sparse and as a dense product."""
    x = Map(Kind.LOAD, (1, map.inputs, 1, 2048))
    alone = [
        Map(kind, (1, map.channels, 1, 2048), ((x, 0),), inputs=map.inputs, weight=map.weight, bias=map.bias)
        for kind in (Kind.SPARSE, Kind.DENSE)
    ]
    return [_rehearsal(Program(Chain([each]), {each: (0, map.channels)}, Cut(1, 128, 1))) for each in alone]


def _layer(node: Node, traced: Traced, seconds: dict[Node, float], memo: Memo) -> Callable[..., Tensor] | None:
    """Return a sparse product in place of a node, where it is faster."""
    if node.target is aten.convolution.default:
        layer = _convolution(node, traced)
    elif node.target in (aten.addmm.default, aten.mm.default):
        layer = _linear(node, traced)
    else:
        return None
    if layer is None:
        return None
    what, arguments, run = layer
    (ours_s,) = memo.seconds((*what, tuple(arguments[0].shape)), lambda: [partial(run, *arguments)])
    return run if ours_s < GAIN * seconds[node] else None


def _enough(weight: Tensor | None) -> float | None:
    """Return the density of a weight that is worth trying as a sparse one."""
    if weight is None or weight.dtype != torch.float32 or not weight.numel():
        return None
    left = density(weight)
    return round(left, 2) if left <= SPARSE_ENOUGH else None


def _convolution(node: Node, traced: Traced) -> tuple[Any, list[Tensor], Callable[..., Tensor]] | None:
    """Return what to call a sparse convolution in the memo, noise to try it with, and what computes it."""
    x, weight, bias, stride, padding, dilation, transposed, _, groups = operands(node)
    weight_mkhw, shape = traced.constants.get(weight), tuple(x.meta["val"].shape)
    left, bias_m = _enough(weight_mkhw), traced.constants.get(bias)
    if weight_mkhw is None or left is None or weight_mkhw.dim() != 4 or len(shape) != 4:
        return None
    if transposed or (bias is not None and bias_m is None):
        return None
    down, across = weight_mkhw.shape[2:]
    geometry = Geometry((down, across), tuple(stride), tuple(padding), tuple(dilation), groups)
    product = Convolution(weight_mkhw, bias_m, geometry, shape)

    def run(x: Tensor, *rest: Any) -> Tensor:
        return product(x.contiguous())

    return (geometry, tuple(weight_mkhw.shape), left), [torch.rand(shape, dtype=torch.float32)], run


def _linear(node: Node, traced: Traced) -> tuple[Any, list[Tensor], Callable[..., Tensor]] | None:
    """Return the same of a linear layer."""
    bias, x, weight = operands(node) if node.target is aten.addmm.default else (None, *operands(node))
    weight_km, bias_m = traced.constants.get(weight), traced.constants.get(bias)
    left = _enough(weight_km)
    if weight_km is None or left is None or node.kwargs:
        return None
    if bias is not None and (bias_m is None or bias_m.shape != weight_km.shape[1:]):
        return None
    product = Product(weight_km.t().contiguous(), bias_m)
    shape = tuple(x.meta["val"].shape)
    at = 0 if bias is None else 1

    def run(*arguments: Tensor) -> Tensor:
        return product(arguments[at].contiguous())

    arguments = [torch.rand(shape, dtype=torch.float32)] * 2
    return ("linear", tuple(weight_km.shape), left, at), arguments[: at + 1], run
