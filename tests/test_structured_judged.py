"""Our finder judged by torch-pruning: the same groups, the same scores, and networks cut alike."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from channel_nets import Dense, Gate, Scaled, groups, upsampler, vgg
from finding import find
from torch import Tensor, nn

from prunekit.network import bind_network
from prunekit.structured.resize import resized
from prunekit.structured.torch_pruning import find_by_torch_pruning
from prunekit.structured.trial import shrunk
from prunekit.structured.units import united

NETWORKS: dict[str, Any] = {
    "vgg": vgg,
    "dense": Dense,
    "dense with a residual": partial(Dense, residual=True),
    "upsampler": upsampler,
    "scaled": Scaled,
    "gate": Gate,
    "resnet18": "timm:resnet18",
    "convnext_atto": "timm:convnext_atto",
    "dncnn": "{name: 'spandrel:DnCNN', in_nc: 3, out_nc: 3, nc: 16, nb: 5}",
}
SLOW = {"convnext_atto", "resnet18", "dncnn", "scaled", "dense with a residual"}


def networks(*without: str) -> pytest.MarkDecorator:
    names = [name for name in NETWORKS if name not in without]
    marked = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in names]
    return pytest.mark.parametrize("name", marked)


def built(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    network = NETWORKS[name]
    if isinstance(network, str):
        pytest.importorskip("timm" if "timm" in network else "spandrel")
    model = bind_network(network)() if isinstance(network, str) else network()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.weight.data.uniform_(0.5, 2)
    return model.eval(), torch.rand(
        1, 3, 32 if isinstance(network, str) else 16, 32 if isinstance(network, str) else 16
    )


@pytest.mark.slow
@networks()
def test_our_groups_are_those_of_torch_pruning(name: str) -> None:
    model, example = built(name)
    theirs = groups(find_by_torch_pruning(model, example))
    assert max(max(ids) for ids in theirs.values()) > 1
    assert groups(find(model, example)) == theirs


@networks("gate")  # which torch-pruning leaves without fitting halves
def test_a_network_cut_by_us_is_the_one_that_torch_pruning_cuts(name: str) -> None:
    model, example = built(name)
    found = find(model, example)
    units = united(found, lambda name: None)
    kept = np.random.default_rng(0).random(len(units.worth)) < 0.6
    kept[0] = True
    ours = shrunk(model, resized(model, found, units, kept, {}))
    theirs = cut_by_torch_pruning(model, example, {key: ~kept[ids] for key, ids in units.axes.items()})
    assert {key: tuple(value.shape) for key, value in ours.state_dict().items()} == {
        key: tuple(value.shape) for key, value in theirs.state_dict().items()
    }
    assert sum(each.numel() for each in ours.parameters()) < 0.8 * sum(each.numel() for each in model.parameters())
    with torch.no_grad():
        assert torch.equal(ours(example), theirs(example))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg", "dense", "dncnn"])
def test_our_scores_are_those_of_torch_pruning(name: str) -> None:
    """Within a group, as a share of its mean: squares summed over a channel, the mean of that over the tensors.

    Left out are networks in which channels of one group are in unlike numbers of tensors, depthwise layers and scales:
    torch-pruning divides by the number of all tensors in the group, and does not score those.
    """
    import torch_pruning

    model, example = built(name)
    named = dict(model.named_parameters())
    units = united(find(model, example), named.get, power=2)
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer="mean")
    compared = 0
    for group, path in their_groups(model, example):
        ours = torch.from_numpy(units.worth[units.axes[f"{path}.weight", 0]]).float()
        torch.testing.assert_close(ours / ours.mean(), importance(group), rtol=1e-5, atol=1e-6)
        compared += 1
    assert compared > 2


def their_groups(model: nn.Module, example: Tensor) -> Iterator[tuple[Any, str]]:
    """Yield torch-pruning's own groups of what can go, and where the layer stands that each begins with."""
    import torch_pruning

    graph = torch_pruning.DependencyGraph().build_dependency(model, example, verbose=False)
    paths = {module: path for path, module in model.named_modules()}
    last = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d)][-1]
    for group in graph.get_all_groups(ignored_layers=[last]):
        yield group, paths[group[0].dep.target.module]


def cut_by_torch_pruning(model: nn.Module, example: Tensor, gone: dict[tuple[str, int], Any]) -> nn.Module:
    """Return the network after torch-pruning's own cut of those outputs of each layer."""
    theirs = copy.deepcopy(model)
    for group, path in list(their_groups(theirs, example)):
        layer = theirs.get_submodule(path)
        axis = 1 if getattr(layer, "transposed", False) else 0
        group.prune(np.flatnonzero(gone[f"{path}.weight", axis]).tolist())
    return theirs
