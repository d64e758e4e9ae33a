"""How much memory there is: what the system has, or less where a container may not take it all."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunekit_mir_l.memory import available_bytes

MEMINFO = "MemTotal:       16000 kB\nMemAvailable:    8000 kB\nHugePages_Total:       0\n"


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def group(folder: str, limit: str, used: int, cached: int) -> dict[str, str]:
    """A group of version 2."""
    home = f"sys/fs/cgroup/{folder}"
    texts = {"memory.max": limit, "memory.current": str(used), "memory.stat": f"anon 7\ninactive_file {cached}"}
    return {f"{home}/{name}": text + "\n" for name, text in texts.items()}


OLD = {
    "proc/meminfo": MEMINFO,
    "proc/self/cgroup": "12:cpu,cpuacct:/\n4:memory:/docker/abc\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "500000\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "300000\n",
    "sys/fs/cgroup/memory/memory.stat": "cache 9\ntotal_inactive_file 50000\n",
}
SYSTEM = {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/a/b\n"}


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, None),
        ({"proc/meminfo": MEMINFO}, 8_192_000),
        (SYSTEM | group("", "max", 5, 0), 8_192_000),
        (SYSTEM | group("a/b", "1000000", 700_000, 100_000), 400_000),
        (SYSTEM | group("a/b", "max", 0, 0) | group("a", "900000", 300_000, 0), 600_000),
        (SYSTEM | group("a/b", "100", 300, 0), 0),
        (SYSTEM | group("", "99000000", 0, 0), 8_192_000),
        (OLD, 250_000),
    ],
)
def test_the_least_of_what_system_and_containers_leave(tmp_path: Path, files: dict[str, str], left: int | None) -> None:
    assert available_bytes(lay(tmp_path, files)) == left
