"""A Dask cluster on this machine, started as a user would; for tests and benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def dask_cluster(folder: Path, workers: int) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """Start a scheduler and workers of one thread each; yield its address and the workers."""
    found = folder / f"scheduler_{workers}.json"
    dask = (sys.executable, "-m", "dask")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    options = ("--scheduler-file", str(found), "--no-dashboard")
    where = ("--host", "127.0.0.1", "--port", "0")
    one = ("--nthreads", "1", "--no-nanny")
    commands = [(*dask, "scheduler", *where, *options)]
    commands += [(*dask, "worker", *one, *options)] * workers
    processes = [subprocess.Popen(command, env=environment, **quiet) for command in commands]
    try:
        while not found.exists():
            assert processes[0].poll() is None, "the scheduler did not start"
            time.sleep(0.1)
        yield json.loads(found.read_text())["address"], processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()
