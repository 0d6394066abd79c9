"""The first minutes of a petavoxel on a Dask cluster: what each process holds, how fast it goes.

    python -m benchmarks.petavoxel [--sizes 1000 10000 100000] [--workers 2] [--minutes 1]
                                   [--channels 2] [--levels 2] [--tile 128] [--json FILE]

OME-Zarr images of which no chunk is written (all of them read as zeros) are predicted by
`napari-volseg predict --dask` on a cluster on this machine, one thread for each worker, by a
narrow 3D U-Net of random weights, and are killed after --minutes. Told are the seconds until the
first region is on disk, the regions a second of one worker from then on, and the resident memory
of command, scheduler and workers at the end. docs/petavoxel.md reckons from these.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from benchmarks.streamed import JOIN_SECONDS, start, write_model
from napari_volseg.data import ome_zarr
from napari_volseg.data.contents import Contents
from tests.inference.dask_cluster import dask_cluster

CHUNK = 128


def empty_image(path: Path, size: int) -> Path:
    """Write the description of a cube of which no voxel is there."""
    image = np.broadcast_to(np.zeros((), np.uint8), (1, size, size, size))
    ome_zarr.create(path, Contents(image), (CHUNK,) * 3)
    return path


def regions_in(output: Path) -> int:
    """Count the regions that are on disk."""
    levels = output.with_name(f".{output.name}.unfinished") / "0" / "c"
    return sum(1 for _ in levels.glob("*/*/*"))


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    return psutil.Process(pid).memory_info().rss / 1e6


def measure(folder: Path, model: Path, size: int, workers: int, seconds: float) -> dict[str, float]:
    """Begin to predict a cube; return times and memory."""
    folder.mkdir()
    image, output = empty_image(folder / "image.ome.zarr", size), folder / "labels.ome.zarr"
    with dask_cluster(folder, workers) as (address, pool):
        time.sleep(JOIN_SECONDS)
        began = time.perf_counter()
        client = start(model, image, output, "--dask", address, threads=1)
        while not (first := regions_in(output)):
            if client.poll() is not None:
                raise SystemExit(f"predicting {image} failed")
            time.sleep(0.05)
        started = time.perf_counter()
        time.sleep(max(0, seconds - (started - began)))
        written, now = regions_in(output), time.perf_counter()
        scheduler = next(p.pid for p in psutil.Process().children() if "scheduler" in p.cmdline())
        found = {
            "size": size,
            "first_region_s": started - began,
            "regions_a_second_and_worker": (written - first) / (now - started) / workers,
            "command_mb": resident_mb(client.pid),
            "scheduler_mb": resident_mb(scheduler),
            "worker_mb": max(resident_mb(worker.pid) for worker in pool),
        }
        client.kill()
        client.wait()
    return found


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--channels", type=int, default=2, help="of the network's first level")
    parser.add_argument("--levels", type=int, default=2, help="of the network")
    parser.add_argument("--tile", type=int, default=128, help="edge of what it writes at once")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model.volseg"
        write_model(model, arguments.channels, arguments.levels, arguments.tile)
        for size in arguments.sizes:
            how = arguments.workers, 60 * arguments.minutes
            rows.append(measure(folder / str(size), model, size, *how))
            print("  ".join(f"{key} {value:.4g}" for key, value in rows[-1].items()), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
