"""The memory that this process may still take, also in a container or a batch system on Linux.

psutil knows the machine's memory only.
"""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import psutil


class Hierarchy(NamedTuple):
    """Where a version of control groups lies, and what its files are called."""

    folder: str
    limit: str
    used: str
    unused_cache: str


V1 = Hierarchy(
    "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
)
V2 = Hierarchy("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")


def free_bytes() -> int:
    """Return the bytes that are free, no more than a container or a batch system leaves."""
    return int(min(psutil.virtual_memory().available, memory_left()))


def memory_left(root: Path = Path("/")) -> float:
    """Return the bytes that the control groups of this process leave; infinite without a limit.

    Parameters
    ----------
    root : Path
        Of the file system.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    left = math.inf
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        hierarchy = V1 if controllers else V2
        # A limit holds for all groups inside. A container may see a path of its host's, which
        # is not there, and its own group where the host has the outermost.
        group = PurePosixPath(path.lstrip("/"))
        for place in (group, *group.parents):
            left = min(left, left_in(root / hierarchy.folder / place, hierarchy))
    return left


def left_in(group: Path, hierarchy: Hierarchy) -> float:
    """Return the bytes that one group leaves, with what it only caches of files."""
    try:
        limit = int((group / hierarchy.limit).read_text())
        used = int((group / hierarchy.used).read_text())
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(counts.get(hierarchy.unused_cache, 0)))
    except (OSError, ValueError):
        # It is not there, or its limit is the word "max".
        return math.inf
