"""Write a ticket of an untrained network, for timing: every convolution and linear layer cut to a density.

python tests/benchmarks/make_ticket.py NETWORK DENSITY FILE [SHAPE]

    python tests/benchmarks/make_ticket.py promptir 0.1 promptir-10.safetensors
    python tests/benchmarks/make_ticket.py timm:resnet50 0.1 resnet50-10.safetensors 1x3x224x224
    python tests/benchmarks/make_ticket.py python:tests.benchmarks.nets:dncnn 0.1 dncnn-10.safetensors 1x1x256x256

NETWORK may carry options: "{name: 'python:tests.benchmarks.nets:nafnet', width: 64}". Whoever reads a file that names
code (``python:``) must name it, too: `prunekit bench FILE --network python:tests.benchmarks.nets:dncnn`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import yaml

import prunekit as pk
from prunekit.bench import parse_shape
from prunekit.network import bind_network


def main(network: str, density: str, file: str, shape: str = "1x3x128x128") -> None:
    torch.manual_seed(0)
    model = bind_network(network)()
    masks = pk.prune(model, pk.Masks.dense(model), float(density), allocation=pk.per_layer())
    masks.apply_(model)
    named = yaml.safe_load(network) if network.startswith("{") else network
    pk.save(model, masks, file, network=named, example=torch.zeros(parse_shape(shape)))
    print(pk.load(file))


if __name__ == "__main__":
    sys.path.append(str(Path.cwd()))  # for `python:` names, as `prunekit` does
    main(*sys.argv[1:])
