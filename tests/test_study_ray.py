"""Studies on a Ray cluster of two nodes, both on this machine: the same results, whatever dies on the way."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        subprocess.run([sys.executable, "-c", "import ray"], capture_output=True, check=False).returncode != 0,
        reason='needs pip install "prunekit[ray]"',
    ),
    pytest.mark.skipif(sys.platform != "linux", reason="gives the nodes loopback addresses of their own"),
]
TESTS = Path(__file__).parent
ENVIRONMENT = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
MEMORY = "--object-store-memory=80000000"


def start(*options: str) -> subprocess.Popen[bytes]:
    """Start a node that lives as long as the returned process; everything of it is in one session."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", MEMORY]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([*command, *options], env=ENVIRONMENT, start_new_session=True, **quiet)


def session(leader: int) -> list[int]:
    """Return the processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == leader:
                    found.append(int(entry.name))
            except ProcessLookupError:
                continue
    return found


def end(node: subprocess.Popen[bytes]) -> None:
    """Kill a node and all that it started, until nothing of it is left."""
    while alive := [pid for pid in session(node.pid) if pid != node.pid or node.poll() is None]:
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        node.poll()
        time.sleep(0.1)


@pytest.fixture
def cluster() -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Yield the address of a cluster, and its two working nodes; its head does no work, so each of them may be lost."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    place = Path(tempfile.mkdtemp(dir="/tmp"))  # short: the paths of sockets may have some hundred characters
    head = start("--head", f"--port={address[10:]}", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={place}")
    nodes = []
    try:
        wait_for(address, 1)
        for number in (2, 3):  # one after the other: they share the folder of the session
            nodes.append(start(f"--address={address}", f"--node-ip-address=127.0.0.{number}", "--num-cpus=1"))
            wait_for(address, number)
        yield address, nodes
    finally:
        for node in (*nodes, head):
            end(node)
        shutil.rmtree(place, ignore_errors=True)


def wait_for(address: str, nodes: int) -> None:
    code = f"""if True:
        import ray, sys, time
        for attempt in range(60):
            try:
                ray.init(address="{address}", logging_level=50)
                break
            except Exception:
                time.sleep(1)
        while sum(node["Alive"] for node in ray.nodes()) < {nodes}:
            time.sleep(0.2)
    """
    subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=True, capture_output=True, timeout=180)


def test_a_cluster_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"  # bound, and nobody listens
        process = study(tmp_path / "study", "--ray", address)
        _, problems = process.communicate(timeout=60)
    assert process.returncode == 2 and not (tmp_path / "study").exists()
    assert f"prunekit: --ray {address}: no Ray cluster answers there" in problems and "Traceback" not in problems


def study(out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-m", "prunekit", "study", "toy.yaml", "task.steps=20", "task.step_s=0.2"]
    command += ["--arms", "imp,shuffled,random", "--seeds", "1", "--device", "cpu", "--jobs", "2", "--out", str(out)]
    pipe = subprocess.PIPE
    return subprocess.Popen([*command, *options], cwd=TESTS, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str], out: Path) -> bytes:
    said, problems = process.communicate(timeout=240)
    assert process.returncode == 0, said + problems
    return (out / "study.csv").read_bytes()


def run_of(out: Path, arm: str) -> int:
    """Return the process of an arm's run."""
    found = subprocess.run(["pgrep", "-f", f"prunekit run {out}/seed-0/{arm}.yaml"], capture_output=True, check=True)
    return int(found.stdout.split()[0])


def worker_of(out: Path, process: subprocess.Popen[str]) -> int:
    """Wait for the first stage of the ticket's arm, and return the process that looks after its run."""
    done = out / "seed-0/imp/01-0.5000/done"
    while not done.exists() and process.poll() is None:
        time.sleep(0.05)
    return int(Path(f"/proc/{run_of(out, 'imp')}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.timeout(600)
def test_lost_workers_and_nodes_change_nothing(
    tmp_path: Path, cluster: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    address, nodes = cluster
    here, orphaned, out = tmp_path / "a" / "study", tmp_path / "b" / "study", tmp_path / "c" / "study"
    expected = finish(study(here), here)

    process = study(orphaned, "--ray", address)
    os.kill(worker_of(orphaned, process), signal.SIGKILL)  # its run lives on, and is waited for by the next worker
    assert finish(process, orphaned) == expected

    process = study(out, "--ray", address)
    worker = worker_of(out, process)
    done = out / "seed-0/imp/01-0.5000/done"
    before = done.stat().st_mtime_ns
    (lost,) = [node for node in nodes if worker in session(node.pid)]
    end(lost)  # the node, its worker and the run itself
    assert finish(process, out) == expected
    assert done.stat().st_mtime_ns == before  # that stage was not trained again
    stopped = [line for line in (out / "seed-0/imp.log").read_text().splitlines() if line.startswith("report:")]
    assert len(stopped) == 1  # only the second process came to the end
