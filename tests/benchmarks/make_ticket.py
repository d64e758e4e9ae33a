"""Write a ticket of an untrained network, for timing: every convolution and linear layer cut to a density.

python tests/benchmarks/make_ticket.py NETWORK DENSITY FILE [SHAPE]

    python tests/benchmarks/make_ticket.py promptir 0.1 promptir-10.safetensors
    python tests/benchmarks/make_ticket.py timm:resnet50 0.1 resnet50-10.safetensors 1x3x224x224
"""

from __future__ import annotations

import sys

import torch

import prunekit as pk
from prunekit.bench import parse_shape
from prunekit.network import bind_network


def main(network: str, density: str, file: str, shape: str = "1x3x128x128") -> None:
    torch.manual_seed(0)
    model = bind_network(network)()
    masks = pk.prune(model, pk.Masks.dense(model), float(density), allocation=pk.per_layer())
    masks.apply_(model)
    pk.save(model, masks, file, network=network, example=torch.zeros(parse_shape(shape)))
    print(pk.load(file))


if __name__ == "__main__":
    main(*sys.argv[1:])
