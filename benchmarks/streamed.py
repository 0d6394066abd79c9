"""Prediction into OME-Zarr: memory and time by size, and how well two workers share the work.

    python -m benchmarks.streamed [--sizes 128 256 512] [--size 256] [--json FILE]

A narrow 3D U-Net that was never trained predicts cubes that are generated on disk, with
`napari-volseg predict` in a process of its own: seconds of wall clock, and the most that it
held in memory, beside what it holds for a tiny volume. Then one of the cubes is predicted by a
Dask cluster on this machine with one and with two workers of one thread each: efficiency is
the time with one over twice the time with two; both outputs must equal the single
process's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
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
JOIN_SECONDS = 8
"""Until all workers have found the scheduler."""

CONFIG = UNet3DConfig(
    channels=4, pooling=((2, 2, 2),) * 2, kernels=((3, 3, 3),) * 3, padding="same",
    test_statistics="running", tile=(64, 64, 64),
)  # fmt: skip


def write_model(path: Path) -> None:
    """Write a network of random weights."""
    torch.manual_seed(0)
    checkpoint = Checkpoint(
        model="unet3d", config=asdict(CONFIG), training=TrainingConfig().to_json(), channels=1,
        classes=default_classes((1, 2)), spacing=(1, 1, 1), unit="pixel",
        intensity=(ChannelIntensity(0.0, 1.0, 0.0, 1.0),), step=1, seconds=1, score=None,
        iou=(None, None), belief=Belief(), weights=build(CONFIG, 1, 2).state_dict(),
    )  # fmt: skip
    save_model(checkpoint, path)


def write_cube(path: Path, size: int) -> None:
    """Write a smooth uint8 cube, chunk by chunk."""
    z, y, x = (da.arange(size, chunks=64) / 9.0 for _ in range(3))
    cube = da.sin(z)[:, None, None] * da.sin(y)[None, :, None] * da.sin(x)[None, None]
    write_volume(path, Volume((100 + 90 * cube).astype(np.uint8)[None], name="cube"))


def predict(model: Path, image: Path, output: Path, *options: str) -> tuple[float, float]:
    """Run the command; return seconds, and MB of its resident memory at most."""
    command = (sys.executable, "-m", "napari_volseg", "predict", model, image, "-o", output)
    began = time.perf_counter()
    process = subprocess.Popen(
        [*map(str, command), "--device", "cpu", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"predicting {image} failed")
    return time.perf_counter() - began, usage.ru_maxrss / 1e3


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[128, 256, 512])
    parser.add_argument("--size", type=int, default=256, help="of the cube for the cluster")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        model = here / "model.volseg"
        write_model(model)
        print(f"{'size':>6}{'s':>9}{'Mvoxel/s':>10}{'peak MB':>9}")
        for size in (TINY, *arguments.sizes):
            write_cube(here / f"{size}.ome.zarr", size)
            output = here / f"{size}_labels.ome.zarr"
            seconds, memory = predict(model, here / f"{size}.ome.zarr", output)
            rate = size**3 / seconds / 1e6
            rows.append({"size": size, "seconds": seconds, "peak_mb": memory})
            print(f"{size:6}{seconds:9.1f}{rate:10.2f}{memory:9.0f}", flush=True)
        image = here / f"{arguments.size}.ome.zarr"
        if not image.exists():
            write_cube(image, arguments.size)
        alone = here / "alone.ome.zarr"
        predict(model, image, alone)
        times = {}
        for workers in (1, 2):
            output = here / f"by_{workers}.ome.zarr"
            with dask_cluster(here, workers) as (address, _):
                time.sleep(JOIN_SECONDS)
                # The first is for the workers to import what they need.
                predict(model, here / f"{TINY}.ome.zarr", here / "tiny.ome.zarr", "--dask", address)
                times[workers], _ = predict(model, image, output, "--dask", address)
            same = np.array_equal(read_annotation(output).labels, read_annotation(alone).labels)
            print(f"{workers} workers: {times[workers]:.1f} s, equal: {same}", flush=True)
        efficiency = times[1] / (2 * times[2])
        print(f"efficiency {efficiency:.2f}")
    if arguments.json:
        found = {"sizes": rows, "workers": times, "efficiency": efficiency}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
