"""A ticket: a pruned network as a value, and what it says of itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from pydantic import BaseModel, ConfigDict, field_validator
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from prunekit.errors import CheckpointError, MaskError
from prunekit.masks import Masks
from prunekit.network import bind_network, build_bounded, is_harmless
from prunekit.rewind import restore, snapshot
from prunekit.rewind import state as named
from prunekit.select import parameters
from prunekit.shape import Shape
from prunekit.sizes import resize_, tensors_of
from prunekit.task import Mean
from prunekit.weights import refuse_unfitting

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}
"""The types that a ticket may hold, by name."""

ROOM = 64
"""A compacted file may name a network that is at most so many times larger than its tensors."""
UNFIT = "a ticket file cannot hold that; save it in another way."
LARGEST_INPUT = 2**28
"""Entries; a file must not make its reader take more for an example."""


@final
class About(BaseModel):
    """What a ticket says of itself beside its tensors; stored as JSON.

    Args:
        network: name and options of the network, as ``prunekit.network.bind_network`` takes them.
        parameters: entries of all parameters of the network, buffers apart, cut or not.
        compacted: whether channels were removed, by a structured cut or as dead ones, so that tensors are smaller than
            those of the network that ``network`` builds.
        parameters_before: of the network before that; 0 if it never happened.
        attributes: integer attributes of modules that this changed, e.g. ``"body.0.out_channels"``.
        input_shape: shape of one input, with a batch axis.
        input_dtype: its type, e.g. ``"float32"``.
        measures: of the test data, each with its protocol.
        recipe: hash of the recipe it was trained with.
        stage: name of the stage of the run it comes from.
        prunekit: version that wrote it.
    """

    # A PSNR may be infinite, which JSON has no word for unless told.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, ser_json_inf_nan="constants")
    network: dict[str, Any] | None = None
    parameters: int | None = None
    compacted: bool = False
    parameters_before: int = 0
    attributes: dict[str, int] = {}
    input_shape: list[int] | None = None
    input_dtype: str = "float32"
    measures: list[Mean] = []
    recipe: str | None = None
    stage: str | None = None
    prunekit: str = ""

    def shrunk(self, shape: Shape) -> About:
        """Return the same of a network that lost the channels that ``shape`` leaves out."""
        changed: dict[str, Any] = {"parameters": shape.kept}
        if shape.indices:
            before = self.parameters_before or shape.prunable
            attributes = {**self.attributes, **shape.attributes}
            changed |= {"compacted": True, "parameters_before": before, "attributes": attributes}
        return self.model_copy(update=changed)

    @field_validator("input_shape")
    @classmethod
    def _is_small(cls, shape: list[int] | None) -> list[int] | None:
        if shape is not None and (not 1 <= len(shape) <= 8 or min(shape) < 1 or math.prod(shape) > LARGEST_INPUT):
            raise ValueError(f"no input has the shape {shape[:8]}")
        return shape

    @field_validator("input_dtype")
    @classmethod
    def _is_known(cls, dtype: str) -> str:
        if dtype not in DTYPES:
            raise ValueError(f"no input is of type {dtype[:20]!r}")
        return dtype


@final
@dataclass(frozen=True, eq=False)
class Ticket:
    """A pruned network as a value: made by ``prunekit.load`` or `Ticket.of`.

    Args:
        tensors: canonical name -> parameter or buffer with zeros where it is cut, in model order, on the CPU; what
            ``prunekit.restore`` takes.
        masks: of the prunable ones; none where nothing but channels was cut, see `masked`.
        about: everything else.
        trusted: whether ``about.network`` may run any code; it may not where a file brought it.
        trained: False for a network that was only just initialised.
    """

    tensors: Mapping[str, Tensor]
    masks: Masks
    about: About
    trusted: bool = False
    trained: bool = True

    def __repr__(self) -> str:
        name = (self.about.network or {}).get("name")
        return f"Ticket({name or 'no network named'}: {self.density})"

    @staticmethod
    def of(model: nn.Module, cut: Masks | Shape, about: About) -> Ticket:
        """Return a model and what was cut of it as a ticket; the tensors are copies.

        Args:
            model: with zeros where masks cut; in the shape, if it is one.
            cut: masks of the model, or the shape that it was given.
            about: what else is to be said; its counts of parameters are filled in.

        Raises:
            MaskError: the masks do not fit the model, or a weight that they cut is not zero (it is named).
            CheckpointError: the model does not have the shape, or has state that is no plain tensor (it is named).
        """
        masks = cut if isinstance(cut, Masks) else Masks({})
        for name, count in masks.revived(model).items():
            raise MaskError(
                f"{count} weights of {name!r} that the masks cut are not zero: call masks.apply_(model) first, or the "
                "file would hold another network than the model."
            )
        whole = parameters(model)
        tensors = snapshot(model)
        for name, value in model.state_dict().items():
            if not isinstance(value, Tensor) or name.rpartition(".")[2] == "_extra_state":
                raise CheckpointError(f"the model's state holds {name!r}, which is no parameter or buffer: {UNFIT}")
        for name in whole.keys() - tensors.keys():
            raise CheckpointError(f"the model keeps its parameter {name!r} out of its state_dict: {UNFIT}")
        for name, tensor in tensors.items():
            if tensor.is_meta or tensor.layout != torch.strided:
                raise CheckpointError(f"{name!r} is a {'meta' if tensor.is_meta else 'sparse'} tensor: {UNFIT}")
        count = sum(parameter.numel() for parameter in whole.values())
        about = about.model_copy(update={"parameters": count})
        if isinstance(cut, Shape):
            _require_shape(whole, cut)
            about = about.shrunk(cut)
        return Ticket({name: tensor.cpu() for name, tensor in tensors.items()}, masks, about, trusted=True)

    @property
    def density(self) -> str:
        """How much is kept, in words, by both denominators."""
        cut = self.masks.prunable - self.masks.kept
        total, before = self.about.parameters, self.about.parameters_before
        if total and not cut and (before or not self.masks):
            how = " by removing channels" if before else ""
            return f"keeps {total:,} of {before or total:,} parameters ({total / (before or total):.2%}){how}"
        text = f"keeps {self.masks.kept:,} of {self.masks.prunable:,} prunable weights ({self.masks.density:.2%})"
        if not total:
            return text
        removed = f"; {(total - cut) / before:.2%} of the {before:,} before channels were removed" if before else ""
        return f"{text}, {total - cut:,} of all {total:,} parameters ({(total - cut) / total:.2%}){removed}"

    def masked(self) -> Ticket:
        """Return the ticket with masks; dense ones over what is prunable by default, if it has none.

        Raises:
            PruneKitError: as `model`; or the network has nothing that is prunable by default.
        """
        return self if self.masks else replace(self, masks=Masks.dense(self.model()))

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Shape of one input, with a batch axis; None where nobody said."""
        return tuple(self.about.input_shape) if self.about.input_shape is not None else None

    def taking(self, shape: Sequence[int]) -> Ticket:
        """Return the ticket with inputs of another shape."""
        return replace(self, about=self.about.model_copy(update={"input_shape": list(shape)}))

    def example(self, shape: Sequence[int] | None = None) -> Tensor:
        """Return an input: seeded uniform noise in [0, 1) of ``shape``, the ticket's own by default.

        Raises:
            CheckpointError: neither the ticket nor the caller says which shape.
        """
        wanted = shape or self.about.input_shape
        if wanted is None:
            raise CheckpointError("this ticket does not say what its inputs look like; give a shape, e.g. 1x3x128x128.")
        noise = torch.rand(*wanted, generator=torch.Generator().manual_seed(0))
        return noise.to(DTYPES[self.about.input_dtype])

    def output(self) -> Tensor:
        """Return everything that the network returns for `example`, in one row.

        Raises:
            CheckpointError: it does not take such an input; or as `model` and `example`.
        """
        model, example = self.model(), self.example()
        try:
            with torch.no_grad():
                leaves = [leaf for leaf in tree_leaves(model(example)) if isinstance(leaf, Tensor)]
            return torch.cat([leaf.flatten() for leaf in leaves])
        except Exception as cause:  # whatever the network's own code raises
            raise CheckpointError(
                f"the network does not run on an input of shape {tuple(example.shape)}: {cause}."
            ) from cause

    def model(self) -> nn.Module:
        """Build the network with the ticket's weights, in eval mode on the CPU.

        Raises:
            CheckpointError: the ticket names no network, or its tensors do not fit the one it names.
            RecipeError, PluginError: that network, or one of its options, is not known here.
        """
        model = self.dense_model()
        state = tensors_of(model)
        if self.about.compacted:
            resize_(model, {name: tuple(t.shape) for name, t in self.tensors.items()}, self.about.attributes)
        else:
            refuse_unfitting(self.tensors, named(model), f"a ticket for {self._network()['name']}")
        for name, tensor in self.tensors.items():  # one by one: buffers that no file holds keep their types
            if name in state and state[name].dtype != tensor.dtype:
                state[name].data = state[name].data.to(tensor.dtype)
        restore(model, self.tensors)
        return model.eval()

    def dense_model(self) -> nn.Module:
        """Build the network as it is before channels are removed, with weights of its own, in eval mode on the CPU.

        Raises:
            CheckpointError: the ticket names no network.
            RecipeError, PluginError: that network, or one of its options, is not known here.
        """
        return self._built(self._network()).eval()

    def _network(self) -> Mapping[str, Any]:
        if self.about.network is None:
            raise CheckpointError(
                "this ticket does not say which network it is of: name it (--network NAME, or network= in Python), or "
                "build it yourself and copy the weights with prunekit.restore(model, ticket.tensors)."
            )
        return self.about.network

    def _built(self, network: Mapping[str, Any]) -> nn.Module:
        if self.trusted:
            with torch.random.fork_rng(devices=[]):
                return bind_network(network)()
        if not is_harmless(network):
            raise CheckpointError(
                f"the file asks for the network {network}, which may run code or open files on its author's behalf; "
                f"nothing was run. If you trust it, name the network yourself: --network {network.get('name')!r}, or "
                "network= in Python; its options are then taken from the file."
            )
        room = ROOM if self.about.compacted else 1
        entries = sum(tensor.numel() for tensor in self.tensors.values())
        # Some room more, for tied tensors and for buffers that no file holds.
        return build_bounded(network, tensors=4 * len(self.tensors) + 100, entries=room * entries * 2 + 2**20)

    def vouched(self, network: Mapping[str, Any]) -> Ticket:
        """Return the ticket with a network that the user vouches for."""
        return replace(self, about=self.about.model_copy(update={"network": dict(network)}), trusted=True)


def _require_shape(own: Mapping[str, Tensor], shape: Shape) -> None:
    """Raise unless the parameters are as many and as large as the shape says."""
    wanted = {name: kept for name, (kept, _) in shape.per_tensor().items()}
    for name in {**own, **wanted}:
        found = own[name].numel() if name in own else 0
        if found != wanted.get(name, 0):
            raise CheckpointError(
                f"the model's {name!r} has {found:,} entries, and the shape keeps {wanted.get(name, 0):,}: call "
                "shape.apply_(model) first, or give the shape that the model has."
            )
