"""What a process holds in memory that does one thing alone."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable


def memory_alone(*command: str) -> dict[str, float]:
    """Run a script that calls ``print_memory``; return what it found."""
    answer = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def print_memory(work: Callable[[], object]) -> None:
    """Do some work; print, as JSON, MB of resident memory before it and at most."""
    idle = psutil.Process().memory_info().rss
    work()
    print(json.dumps({"peak_mb": peak_bytes() / 1e6, "idle_mb": idle / 1e6}))


def peak_bytes() -> int:
    """Return the resident memory of this process at most."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not getrusage: on Linux its maximum is inherited from the parent process.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["VmHWM"].split()[0])
