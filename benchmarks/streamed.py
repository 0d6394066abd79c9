"""Prediction into OME-Zarr: memory and time by size, and how well two workers share the work.

    python -m benchmarks.streamed [--sizes 128 256 512] [--shape Z Y X] [--size 384]
                                  [--channels 4] [--levels 3] [--tile 64] [--json FILE]

A narrow 3D U-Net that was never trained predicts cubes (and a volume of another shape) that are
generated on disk, with `napari-volseg predict` in a process of its own: seconds of wall clock,
and the most that it held in memory, beside what it holds for a tiny volume. Then one of the
cubes is predicted by a Dask cluster on this machine with one and with two workers of one thread
each: efficiency is the time with one over twice the time with two; both outputs must equal the
single process's. Before that, two single processes of one thread each predict it at the same
time: what one of them alone takes over what they take is all that two workers can reach here.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import dask.array as da
import numpy as np
import torch

from napari_volseg import read_annotation
from napari_volseg.data.annotation import default_classes
from napari_volseg.data.files import write_volume
from napari_volseg.data.intensity import ChannelIntensity
from napari_volseg.data.volume import Volume
from napari_volseg.models.belief import Belief
from napari_volseg.models.checkpoint import Checkpoint, save_model
from napari_volseg.models.unet3d import build
from napari_volseg.models.unet3d_config import UNet3DConfig
from napari_volseg.sparse.config import TrainingConfig
from tests.inference.dask_cluster import dask_cluster

TINY = 32
SEVERAL = 2
"""Regions along each axis of a volume of which every worker gets some."""
JOIN_SECONDS = 8
"""Until all workers have found the scheduler."""

Shape = tuple[int, int, int]


def write_model(path: Path, channels: int, levels: int, tile: int) -> None:
    """Write a network of random weights."""
    torch.manual_seed(0)
    config = UNet3DConfig(
        channels=channels, pooling=((2, 2, 2),) * (levels - 1), kernels=((3, 3, 3),) * levels,
        padding="same", test_statistics="running", tile=(tile, tile, tile),
    )  # fmt: skip
    checkpoint = Checkpoint(
        model="unet3d", config=asdict(config), training=TrainingConfig().to_json(), channels=1,
        classes=default_classes((1, 2)), spacing=(1, 1, 1), unit="pixel",
        intensity=(ChannelIntensity(0.0, 1.0, 0.0, 1.0),), step=1, seconds=1, score=None,
        iou=(None, None), belief=Belief(), weights=build(config, 1, 2).state_dict(),
    )  # fmt: skip
    save_model(checkpoint, path)


def write_waves(folder: Path, shape: Shape) -> Path:
    """Write a smooth uint8 volume, chunk by chunk, unless it is there."""
    path = folder / f"{'x'.join(map(str, shape))}.ome.zarr"
    if path.exists():
        return path
    z, y, x = (da.sin(da.arange(size, chunks=64) / 9.0) for size in shape)
    waves = z[:, None, None] * y[None, :, None] * x[None, None]
    write_volume(path, Volume((100 + 90 * waves).astype(np.uint8)[None], name="waves"))
    return path


def start(
    model: Path, image: Path, output: Path, *options: str, threads: int | None = None
) -> subprocess.Popen[bytes]:
    """Start the command in a process of its own."""
    command = (sys.executable, "-m", "napari_volseg", "predict", model, image, "-o", output)
    own = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(
        [*map(str, command), "--device", "cpu", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | own,
    )


def predict(
    model: Path, image: Path, output: Path, *options: str, threads: int | None = None
) -> tuple[float, float]:
    """Run the command; return seconds, and MB of its resident memory at most."""
    began = time.perf_counter()
    process = start(model, image, output, *options, threads=threads)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"predicting {image} failed")
    return time.perf_counter() - began, usage.ru_maxrss / 1e3


def by_size(model: Path, folder: Path, shapes: list[Shape]) -> list[dict[str, object]]:
    """Predict volumes one after the other."""
    rows: list[dict[str, object]] = []
    print(f"{'shape':>18}{'s':>9}{'Mvoxel/s':>10}{'peak MB':>9}")
    for shape in shapes:
        image = write_waves(folder, shape)
        seconds, memory = predict(model, image, folder / f"labels_of_{image.name}")
        rate = math.prod(shape) / seconds / 1e6
        rows.append({"shape": shape, "seconds": seconds, "peak_mb": memory})
        print(f"{shape!s:>18}{seconds:9.1f}{rate:10.2f}{memory:9.0f}", flush=True)
    return rows


def by_workers(model: Path, folder: Path, size: int, tile: int) -> dict[str, float]:
    """Predict a cube with one and two workers, and see what the machine itself allows."""
    several, image = (write_waves(folder, (n,) * 3) for n in (SEVERAL * tile, size))
    alone = folder / "alone.ome.zarr"
    found: dict[str, float] = {}
    found["single_s"], _ = predict(model, image, alone, threads=1)
    with ThreadPoolExecutor() as two:
        pair = [
            two.submit(predict, model, image, folder / f"of_two_{i}.ome.zarr", threads=1)
            for i in range(2)
        ]
        found["single_of_two_s"] = statistics.mean(one.result()[0] for one in pair)
    found["limit"] = found["single_s"] / found["single_of_two_s"]
    print(
        f"alone {found['single_s']:.1f} s, beside another {found['single_of_two_s']:.1f} s:", end=""
    )
    print(f" no efficiency above {found['limit']:.2f}", flush=True)
    for workers in (1, 2):
        output = folder / f"by_{workers}.ome.zarr"
        with dask_cluster(folder, workers) as (address, _):
            time.sleep(JOIN_SECONDS)
            # The first is for all workers to import what they need.
            predict(model, several, folder / f"several_by_{workers}.ome.zarr", "--dask", address)
            seconds, _ = predict(model, image, output, "--dask", address)
        found[f"workers_{workers}_s"] = seconds
        same = np.array_equal(read_annotation(output).labels, read_annotation(alone).labels)
        print(f"{workers} workers: {seconds:.1f} s, equal: {same}", flush=True)
    found["efficiency"] = found["workers_1_s"] / (2 * found["workers_2_s"])
    print(f"efficiency {found['efficiency']:.2f}")
    return found


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[128, 256, 512])
    parser.add_argument("--shape", type=int, nargs=3, help="of one more volume (z, y, x)")
    parser.add_argument("--channels", type=int, default=4, help="of the network's first level")
    parser.add_argument("--levels", type=int, default=3, help="of the network")
    parser.add_argument("--tile", type=int, default=64, help="edge of what it writes at once")
    parser.add_argument("--size", type=int, default=384, help="of the cube for the cluster, or 0")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    shapes: list[Shape] = [(n, n, n) for n in (TINY, *arguments.sizes)]
    if arguments.shape:
        shapes.append(tuple(arguments.shape))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model.volseg"
        write_model(model, arguments.channels, arguments.levels, arguments.tile)
        found: dict[str, object] = {"sizes": by_size(model, folder, shapes)}
        if arguments.size:
            found["workers"] = by_workers(model, folder, arguments.size, arguments.tile)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
