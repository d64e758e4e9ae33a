"""Calibration: the data that a scorer may look at, and what training has gathered for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, final

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from prunekit.errors import SelectionError


@final
@dataclass(frozen=True, repr=False)
class Calibration:
    """Batches and the loss on one of them; without either, asking for what needs it is an error that says so.

    Args:
        batches: a list of batches on the model's device, or a function that returns them afresh, always the same ones.
        loss: (model, batch) -> scalar mean loss of one forward pass, ready for ``backward``. Without it a batch is
            itself the network's input.
        movement: what `prunekit.track` gathered while the model was trained, for ``movement()``.
        example: one input with a batch axis, with which a network is traced and its multiply-adds are counted; the
            first one of the batches where there is none.

    Example:
        >>> import torch
        >>> pairs = [(torch.ones(4, 3), torch.zeros(4, 2))]
        >>> data = Calibration(pairs, lambda model, pair: (model(pair[0]) - pair[1]).square().mean())
        >>> model = nn.Linear(3, 2)
        >>> [x.shape for x in data.inputs(model)]
        [torch.Size([4, 3])]
        >>> len(list(data.losses(model))), len(list(data.examples(model)))
        (1, 4)
        >>> data
        Calibration(batches: 1, loss: <lambda>)
    """

    batches: Sequence[Any] | Callable[[], Iterable[Any]] | None = None
    loss: Callable[[nn.Module, Any], Tensor] | None = None
    movement: Mapping[str, Tensor] | None = None
    example: Any = None

    def __repr__(self) -> str:
        count = str(len(self.batches)) if isinstance(self.batches, list | tuple) else self.batches and "made afresh"
        example = tuple(self.example.shape) if isinstance(self.example, Tensor) else type(self.example).__name__
        told = {"batches": count, "loss": None if self.loss is None else named(self.loss)}
        told |= {"movement": f"of {len(self.movement)} tensors" if self.movement else None}
        told |= {"example": None if self.example is None else str(example)}
        return f"Calibration({', '.join(f'{name}: {text}' for name, text in told.items() if text)})"

    def inputs(self, model: nn.Module) -> Iterator[Any]:
        """Yield the network's input for each batch: what the loss hands to the model, caught at its door."""
        for batch in self._batches("network inputs"):
            yield batch if self.loss is None else _caught(self.loss, model, batch)

    def losses(self, model: nn.Module) -> Iterator[Tensor]:
        """Yield each batch's loss."""
        loss = self._loss()
        for batch in self._batches("losses"):
            yield loss(model, batch)

    def examples(self, model: nn.Module) -> Iterator[Tensor]:
        """Yield each example's own loss: every batch taken apart along the first axis of its tensors."""
        loss = self._loss()
        for batch in self._batches("losses"):
            size = max((len(leaf) for leaf in tree_leaves(batch) if isinstance(leaf, Tensor) and leaf.ndim), default=0)
            for row in range(size):
                yield loss(model, tree_map(lambda leaf, row=row, size=size: _row(leaf, row, size), batch))

    def first(self, count: int) -> Calibration:
        """Return the same with the first ``count`` batches only."""
        return replace(self, batches=lambda: islice(self._batches("batches"), count))

    def _batches(self, what: str) -> Iterator[Any]:
        if self.batches is None:
            raise SelectionError(f"this scorer looks at {what}: pass data=prunekit.Calibration(batches, loss).")
        empty = True
        for batch in self.batches() if callable(self.batches) else self.batches:
            empty = False
            yield batch
        if empty:
            raise SelectionError(
                f"this scorer looks at {what}, and the calibration gave none: its batches are empty, or an iterator "
                "that is used up; pass a list, or a function that returns a new iterator."
            )

    def _loss(self) -> Callable[[nn.Module, Any], Tensor]:
        if self.loss is None:
            raise SelectionError(
                "this scorer looks at losses: pass data=prunekit.Calibration(batches, loss), where loss(model, batch) "
                "returns a scalar."
            )
        return self.loss


def _row(leaf: Any, row: int, size: int) -> Any:
    return leaf[row : row + 1] if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == size else leaf


class _Caught(Exception):  # noqa: N818  (not an error: it carries the input out of a forward pass that need not run)
    pass


def _catch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    raise _Caught(next(iter((*args, *kwargs.values()))))


def _caught(loss: Callable[[nn.Module, Any], Tensor], model: nn.Module, batch: Any) -> Any:
    handle = model.register_forward_pre_hook(_catch, prepend=True, with_kwargs=True)
    try:
        loss(model, batch)
    except _Caught as caught:
        return caught.args[0]
    finally:
        handle.remove()
    raise SelectionError("the loss never called the model, so there is no network input to look at.")


def named(function: Callable[..., object]) -> str:
    """Return the name of a function, or of the one that made it.

    Example:
        >>> named(len)
        'len'
    """
    return getattr(function, "__qualname__", type(function).__name__).partition(".<locals>")[0]
