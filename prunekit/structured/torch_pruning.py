"""torch-pruning as a second finder, for networks that ``torch.export`` cannot trace."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves, tree_map

from prunekit.budget import Limit
from prunekit.errors import CheckpointError, PruneKitError
from prunekit.select import canonical
from prunekit.sizes import size_at, tensors_of
from prunekit.structured.declare import Declared
from prunekit.structured.find import Found, concluded
from prunekit.structured.walk import Walk

Prune = Callable[..., Any]
"""One of torch-pruning's functions, e.g. to prune the outputs of convolutions: with a node it stands for an axis."""


def find_by_torch_pruning(
    model: nn.Module,
    example: Any,
    *,
    exclude: tuple[str, ...] = (),
    declared: Declared | None = None,
    limit: Limit | None = None,
) -> Found:
    """Find what goes together with torch-pruning's dependency graph, for networks that cannot be traced.

    It knows convolutions, linear layers, norms, embeddings and bare parameters, and takes all else for functions of
    single entries; so a cut of what it found has to be tried. Kept whole besides what it does not reach: channels of
    inputs and outputs, and of layers whose groups or heads would have to stay equally large. It may take for ever, and
    all memory: give it a budget.

    Args:
        model, example, exclude, declared, limit: as `prunekit.structured.find.Finder`.

    Raises:
        CheckpointError: torch-pruning fails on the network.
        SelectionError: as `prunekit.structured.find.Finder`.

    Reference:
        Fang et al. 2023 (DepGraph), arXiv 2301.12900. Its dependencies are followed index by index here, so that
        channels that meet, as the halves of a gate do, go together.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> found = find_by_torch_pruning(model, torch.zeros(1, 3))
        >>> {axis: ids.tolist() for axis, ids in found.axes.items()}
        {('0.weight', 0): [1, 2], ('0.bias', 0): [1, 2], ('2.weight', 1): [1, 2]}
    """
    at = limit or Limit()
    steps = _Steps(copy.deepcopy(model).eval())
    try:
        steps.take(example, at)
    except PruneKitError:
        raise
    except Exception as cause:  # whatever it runs into
        first = str(cause).strip().partition("\n")[0]
        where = f" at {at.at!r}" if at.at else ""
        raise CheckpointError(
            f"torch-pruning cannot follow this network{where} ({type(cause).__name__}: {first})."
        ) from cause
    return concluded(steps.walk, model, exclude, declared)


@final
class _Steps:
    """Follows torch-pruning's dependencies from the outputs of every layer on."""

    def __init__(self, model: nn.Module) -> None:
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        self.walk = Walk({})
        self._model = model
        self._paths = {module: canonical(path) if path else "" for path, module in model.named_modules()}
        self._named = tensors_of(model)
        self._names = {id(tensor): name for name, tensor in self._named.items()}
        self._tied = _tied(model)
        self._reached: dict[tuple[Any, Prune], dict[int, int]] = {}

    def take(self, example: Any, limit: Limit) -> None:
        """Build the graph, follow it, and say of which tensors the slots are."""
        graph = _graph(self._model, example, self._paths, limit)
        for module, node in graph.module2node.items():
            if isinstance(module, _ConvNd | nn.Linear):
                limit.at = self._paths[module]
                prune = graph.get_pruner_of_module(module).prune_out_channels
                self._follow(node, prune, size_at(module, "out_channels") or size_at(module, "out_features"))
        for (node, prune), reached in self._reached.items():
            axes = self._axes_of(node, prune.__name__ == "prune_in_channels")
            if axes is None:
                self.walk.slots.keep(np.array([*reached.values(), 0]))
            for name, axis in axes or []:
                self._note(name, axis, reached)
            if isinstance(node.module, nn.LayerNorm) and axes:
                path, ids = self._paths[node.module], self.walk.axes[axes[0]]
                self.walk.sizes[f"{path}.normalized_shape".removeprefix(".")] = ids
                self.walk.slots.mix(ids)

    def _follow(self, node: Any, prune: Prune, channels: int) -> None:
        from torch_pruning._helpers import _HybridIndex

        todo = [(node, prune, self._enter(node, prune, range(channels)))]
        while todo:
            node, prune, new = todo.pop()
            here = self._reached[node, prune]
            for edge in node.dependencies if new else []:
                if not edge.is_triggered_by(prune):
                    continue
                mapped = [_HybridIndex(idx=index, root_idx=index) for index in new]
                for mapping in filter(None, edge.index_mapping):
                    mapped = mapping(mapped)
                onward = self._enter(edge.target, edge.handler, [each.idx for each in mapped])
                there = self._reached[edge.target, edge.handler]
                ones = [0 if each.root_idx is None else here[each.root_idx] for each in mapped]  # it can lose track
                self.walk.slots.couple(np.array([0, *ones]), np.array([0, *(there[each.idx] for each in mapped)]))
                todo.append((edge.target, edge.handler, onward))

    def _enter(self, node: Any, prune: Prune, indices: Iterable[int]) -> list[int]:
        """Give slots to those indices that have none yet; return them."""
        known = self._reached.setdefault((node, prune), {})
        new = [index for index in dict.fromkeys(indices) if index not in known]
        known.update(zip(new, self.walk.slots.new(len(new)).tolist(), strict=True))
        return new

    def _axes_of(self, node: Any, of_inputs: bool) -> list[tuple[str, int]] | None:
        """Return the axes that shrink with a node's channels; None if they must stay."""
        if isinstance(node.module, nn.Parameter):
            known = id(node.module) in self._names  # otherwise it is an input
            owned = [(node.module, node.pruning_dim % node.module.dim())] if known else None
        elif node.module in self._paths:
            owned = _layer_axes(node.module, of_inputs)
        else:
            owned = None if _stays(node) else []
        if owned is None:
            return None
        axes = [(self._names[id(tensor)], axis) for tensor, axis in owned if tensor is not None]
        return None if any(name in self._tied for name, _ in axes) else axes

    def _note(self, name: str, axis: int, reached: Mapping[int, int]) -> None:
        size = self._named[name].shape[axis]
        ids = np.zeros(max(size, *(index + 1 for index in reached)), dtype=np.int64)
        ids[list(reached)] = list(reached.values())
        self.walk.slots.keep(np.array([*ids[size:], 0]))  # it counted wrong
        self.walk.slots.couple(self.walk.axis(name, axis, size), ids[:size])


def _graph(model: nn.Module, example: Any, paths: Mapping[Any, str], limit: Limit) -> Any:
    """Return torch-pruning's graph, with the inputs in it as parameters, for it sees no others."""
    import torch_pruning

    graph = torch_pruning.DependencyGraph()
    inputs: list[nn.Parameter] = []
    own = {kind: copy.copy(pruner) for kind, pruner in graph.REGISTERED_PRUNERS.items()}  # for all graphs, with state
    graph.REGISTERED_PRUNERS = own

    def entered(leaf: Any) -> Any:
        if not (isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.dim() > 1):
            return leaf
        inputs.append(nn.Parameter(leaf.detach()))
        return inputs[-1] * 1  # which may be written to

    def outputs(out: Any) -> list[Tensor]:
        return [leaf * 1 for leaf in tree_leaves(out) if isinstance(leaf, Tensor) and leaf.requires_grad]

    def naming(ask: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def asked(node: Any) -> Any:
            limit.at = paths.get(getattr(node, "module", node), limit.at)
            return ask(node)

        return asked

    graph.get_in_channels, graph.get_out_channels = naming(graph.get_in_channels), naming(graph.get_out_channels)
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        x = tree_map(entered, example)
        graph.build_dependency(
            model,
            x,
            forward_fn=lambda model, x: model(x),
            output_transform=outputs,
            unwrapped_parameters=[(each, 1 if each.dim() > 3 else each.dim() - 1) for each in inputs],
            verbose=False,
        )
    return graph


def _layer_axes(module: nn.Module, of_inputs: bool) -> list[tuple[Any, int]] | None:
    """Return tensors of one of torch's layers and the axes that its inputs or outputs run along; None if they stay."""
    match module:
        case _ConvNd() if module.groups == 1:
            weight = (module.weight, int(of_inputs != module.transposed))
            return [weight] if of_inputs else [weight, (module.bias, 0)]
        case _ConvNd() if module.groups == module.in_channels == module.out_channels:
            return [(module.weight, 0), (module.bias, 0)]
        case nn.Linear():
            return [(module.weight, 1)] if of_inputs else [(module.weight, 0), (module.bias, 0)]
        case _NormBase():
            owned = (module.weight, module.bias, module.running_mean, module.running_var)
            return [(tensor, 0) for tensor in owned]
        case nn.LayerNorm() if len(module.normalized_shape) == 1 and module.elementwise_affine:
            return [(module.weight, 0), (module.bias, 0)]
        case nn.PReLU():
            return [(module.weight, 0)] if module.num_parameters > 1 else []
        case nn.Embedding():
            return [(module.weight, 1)]
    return None  # heads and groups would have to stay equally large


def _stays(node: Any) -> bool:
    """Return whether channels must stay: the network's outputs, and what is put together of unknown parts."""
    kind, module = type(node.module).__name__, node.module
    unmapped = kind == "_ConcatOp" and node.enable_index_mapping and module.offsets is None
    return kind == "_OutputOp" or (unmapped and getattr(node.grad_fn, "_saved_dim", 1) == 1)


def _tied(model: nn.Module) -> set[str]:
    """Return the names of tensors that more than one layer has: they are several to torch-pruning."""
    names = {id(tensor): name for name, tensor in tensors_of(model).items()}
    owners = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    return {names[each] for each, count in owners.items() if count > 1}
