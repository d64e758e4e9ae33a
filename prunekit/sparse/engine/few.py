"""Few: operators of torch on few numbers, between two chains, in one call of the kernels.

What attention makes of its sums over all pixels takes torch a dozen calls on some thousand numbers: longer than
computing them. Looks at numbers in another shape cost nothing here: they are strides.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor
from torch.fx import Node

from prunekit.native import library
from prunekit.sparse.engine.found import Gathered, aten
from prunekit.sparse.engine.maps import Kind, Map
from prunekit.sparse.engine.program import fields
from prunekit.sparse.engine.views import arrange

LARGEST = 2**18
"""Numbers of a tensor at most: of more, torch's threads are worth the call."""
DIMS = 6
MULTIPLY, PLUS, MINUS, DIVIDE, LARGER, ROOT, INVERSE_ROOT, SOFTMAX = range(8)
BINARY = {aten.mul.Tensor: MULTIPLY, aten.add.Tensor: PLUS, aten.sub.Tensor: MINUS, aten.div.Tensor: DIVIDE}
BINARY |= {aten.clamp_min.default: LARGER}
UNARY = {aten.sqrt.default: ROOT, aten.rsqrt.default: INVERSE_ROOT}


@final
@dataclass(eq=False, frozen=True)
class Buffer:
    """A result that lies in the memory of a call for a while."""

    size: int


@final
@dataclass(frozen=True)
class Value:
    """A tensor by where it lies: ``look`` is it without its numbers, in a storage that begins where ``base`` does.

    Args:
        base: a sink, a result of the few operators, a node of torch's, or a constant.
        look: float32 on the device "meta".
    """

    base: Map | Buffer | Node | Tensor
    look: Tensor


class _Op(ctypes.Structure):
    _fields_ = [
        *fields(ctypes.c_int32, "kind dims a b to"),
        *fields(ctypes.c_int64, "a_at b_at"),
        *fields(ctypes.c_int64 * DIMS, "size a_step b_step"),
    ]


@final
class Few:
    """Operators in a row; each is added as it comes.

    Args:
        gathered: what nodes hold of sinks.
        constants: the values of nodes that never change.
        size: floats of a sink in memory.
    """

    def __init__(
        self, gathered: dict[Node, Gathered], constants: dict[Node, Tensor], size: Callable[[Map], int]
    ) -> None:
        self._gathered, self._constants, self._size = gathered, constants, size
        self._bases: dict[Any, int] = {}
        self._ops: list[_Op] = []
        self.values: dict[Node, Value] = {}
        self._calls: Any = None

    def __call__(self, bases: Any) -> None:
        """Compute; ``bases`` has the addresses of `bases`."""
        library().pk_few(self._calls, len(self._ops), bases)

    @property
    def bases(self) -> list[Map | Buffer | Node | Tensor]:
        """What it reads and writes."""
        return list(self._bases)

    @property
    def theirs(self) -> list[tuple[int, Node]]:
        """What it reads of torch's results, with the number of its base."""
        return [(place, base) for base, place in self._bases.items() if isinstance(base, Node)]

    @property
    def worth(self) -> bool:
        """Whether it saves calls."""
        return len(self._ops) > 1

    def add(self, node: Node) -> bool:
        """Take one more node; return False, and do nothing, where it is none that can be computed here."""
        bases, ops = len(self._bases), len(self._ops)
        value = self._gather(self._gathered[node]) if node in self._gathered else self._operate(node)
        if value is None or value.base not in self._bases or isinstance(value.base, Node | Tensor):
            self._bases = dict(list(self._bases.items())[:bases])
            del self._ops[ops:]
            return False
        self.values[node] = value
        self._calls = (_Op * len(self._ops))(*self._ops)
        return True

    def _gather(self, gathered: Gathered) -> Value | None:
        """Return the sums of all parts of an image, which lie where the first part's were, with factors, finished."""
        sink = gathered.sink
        base = torch.empty(self._size(sink), dtype=torch.float32, device="meta")
        parts = base.view(sink.shape[0], -1, sink.size)[:, 0]
        look = (parts if sink.kind == Kind.GRAM else arrange(parts, gathered.dims)).reshape(gathered.shape)
        value = _seen(Value(sink, base), look)
        for factor in gathered.factors:
            other = self._value(factor.source)
            turned = other and _seen(other, factor.order(other.look))
            value = value and turned and self._new(DIVIDE if factor.divides else MULTIPLY, value, turned)
        if gathered.finish is torch.sqrt:
            value = value and self._new(ROOT, value)
        elif gathered.finish is not None:
            assert isinstance(gathered.finish, partial) and gathered.finish.func is torch.mul
            value = value and self._new(MULTIPLY, value, self._constant(gathered.finish.keywords["other"]))
        if value:
            self._bases.setdefault(value.base, len(self._bases))
        return value

    def _operate(self, node: Node) -> Value | None:
        made = node.meta.get("val")
        if not isinstance(made, Tensor) or made.dtype != torch.float32 or not 0 < made.numel() <= LARGEST:
            return None
        if node.target in BINARY:
            plain = len(node.args) == 2 and not node.kwargs
            a, b = map(self._value, node.args) if plain else (None, None)
            return self._new(BINARY[node.target], a, b) if a and b else None
        first = self._value(node.args[0]) if node.args else None
        if first is None:
            return None
        if node.target in UNARY:
            return self._new(UNARY[node.target], first)
        if node.target is aten._softmax.default and node.args[1] in {-1, made.dim() - 1} and not node.args[2]:
            first = self._contiguous(first)
            return self._new(SOFTMAX, first) if first else None
        if node.target is aten.clone.default:
            return self._contiguous(first)
        return self._viewed(node, first)

    def _viewed(self, node: Node, first: Value) -> Value | None:
        """Return another look at a value, copied where torch would have copied it before."""
        schema = getattr(node.target, "_schema", None)
        aliases = schema is not None and any(returned.alias_info for returned in schema.returns)
        if not aliases and node.target is not aten._unsafe_view.default:
            return None
        assert callable(node.target)
        try:
            look = node.target(first.look, *node.args[1:], **node.kwargs)
        except RuntimeError:  # it does not lie as torch's would
            copied = self._contiguous(first)
            if copied is None:
                return None
            first = copied
            look = node.target(first.look, *node.args[1:], **node.kwargs)
        return _seen(first, look) if isinstance(look, Tensor) else None

    def _value(self, operand: Any) -> Value | None:
        """Return an operand; a node's value that comes from elsewhere is contiguous."""
        if not isinstance(operand, Node):
            return self._constant(operand) if isinstance(operand, float | int) else None
        if operand in self.values or operand in self._gathered:
            return self.values.get(operand)
        known = self._constants.get(operand, operand.meta.get("val"))
        if not isinstance(known, Tensor) or known.dtype != torch.float32:
            return None
        base = known.contiguous() if operand in self._constants else operand
        return Value(base, torch.empty(known.shape, dtype=torch.float32, device="meta"))

    def _constant(self, number: float) -> Value:
        return Value(torch.tensor(number, dtype=torch.float32), torch.empty((), dtype=torch.float32, device="meta"))

    def _contiguous(self, value: Value) -> Value | None:
        return value if value.look.is_contiguous() else self._new(MULTIPLY, value, self._constant(1.0))

    def _new(self, kind: int, a: Value, b: Value | None = None) -> Value | None:
        """Return the result of an operator; None where it has too many dimensions."""
        b = b or a
        shape = torch.broadcast_shapes(a.look.shape, b.look.shape)
        out = torch.empty(shape, dtype=torch.float32, device="meta")
        made = Value(Buffer(out.numel()), out)
        looks = [a.look.expand(shape), b.look.expand(shape)]
        size, a_step, b_step = _loops(shape, [look.stride() for look in looks], merge=kind != SOFTMAX)
        if len(size) > DIMS:
            return None
        places = [self._bases.setdefault(value.base, len(self._bases)) for value in (a, b, made)]
        padding = [1] * (DIMS - len(size))
        self._ops.append(
            _Op(
                *(kind, len(size), *places, looks[0].storage_offset(), looks[1].storage_offset()),
                *((ctypes.c_int64 * DIMS)(*numbers, *padding) for numbers in (size, a_step, b_step)),
            )
        )
        return made


def _seen(value: Value, look: Tensor) -> Value | None:
    """Return another look at a value, None where it was copied."""
    same = look.untyped_storage()._cdata == value.look.untyped_storage()._cdata
    return Value(value.base, look) if same else None


def _loops(shape: Sequence[int], strides: Sequence[Sequence[int]], *, merge: bool) -> tuple[list[int], ...]:
    """Return the sizes and steps of as few loops as will do; each of the results has at least one."""
    dims: list[tuple[int, ...]] = []
    for dim in zip(shape, *strides, strict=True):
        size, *steps = dim
        if size == 1 and merge:
            continue
        if dims and merge and all(outer == size * inner for outer, inner in zip(dims[-1][1:], steps, strict=True)):
            dims[-1] = (dims[-1][0] * size, *steps)
        else:
            dims.append((size, *steps))
    return tuple(map(list, zip(*(dims or [(1, *(1 for _ in strides))]), strict=True)))
