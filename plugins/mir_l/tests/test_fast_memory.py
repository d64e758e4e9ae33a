"""What getting the sparse kernels ready takes in memory, beside the network itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from prunekit.native import kernels

PROGRAM = """
import resource, sys, torch
from prunekit.sparse.engine import build as building
from prunekit.sparse.engine.trace import trace
from prunekit_mir_l.presets import promptir_small

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

torch.set_num_threads(1)
torch.manual_seed(0)
model, x = promptir_small().eval(), torch.rand(1, 3, 256, 256)
before = peak_mib()
with torch.no_grad():
    model(x)
forward = peak_mib() - before
with torch.no_grad():
    building._node_seconds(trace(model, x), x)
print(forward, peak_mib() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts the memory of a process as Linux does")
@pytest.mark.skipif(kernels() is None, reason="the kernels were not built: no C compiler at install")
def test_tracing_and_timing_take_little_more_than_the_network() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    forward_mib, all_mib = map(float, done.stdout.split())
    assert all_mib < 1.5 * forward_mib
