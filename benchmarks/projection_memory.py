"""Measure what the random 2.5D U-Net's memory grows with: p, the directions of path 1, not m.

    python benchmarks/projection_memory.py [--size 48] [--channels 16] [--device cpu] [--json FILE]

For each pair of p (``random_directions``) and m (``directions``), a fresh process projects
a cube of noise, takes one training step (loss and gradient of both paths), and tells by
how much its memory peaked above what it held before the step: the resident set on a CPU,
allocated memory on a GPU. What was projected before the step is given beside it: it
grows with m, by ``4 * channels * size * detector`` bytes a direction.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import torch
from alone import peak_bytes

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.volume import Volume
from napari_volseg.models.projection25d import ProjectionConfig, build, detector_for, stages
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.pool import build_pool

PAIRS = ((4, 12), (4, 24), (4, 60), (8, 60), (12, 60))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=48, help="edge of the cube, in voxels")
    parser.add_argument("--channels", type=int, default=16, help="of the 2D U-Net's first level")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--pair", type=int, nargs=2, metavar=("P", "M"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.pair:
        p, m = arguments.pair
        config = ProjectionConfig(
            channels=arguments.channels, random_directions=p, directions=m, levels=4
        )
        print(json.dumps(measure(config, arguments.size, torch.device(arguments.device))))
        return
    rows = []
    print(f"{'p':>4}{'m':>4}{'step MiB':>10}{'projections MiB':>17}")
    for p, m in PAIRS:
        command = [sys.executable, *sys.argv, "--pair", str(p), str(m)]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append({"p": p, "m": m} | json.loads(answer))
        print(f"{p:4}{m:4}{rows[-1]['step_mib']:10.1f}{rows[-1]['projections_mib']:17.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(config: ProjectionConfig, size: int, device: torch.device) -> dict[str, float]:
    """Take one step and return its peak memory, and that of path 2's projections (MiB)."""
    image = np.random.default_rng(0).standard_normal((1, size, size, size), dtype=np.float32)
    labels = np.zeros((size, size, size), np.uint8)
    labels[size // 2] = 1 + (image[0, size // 2] > 1)
    training = TrainingConfig()
    pool = build_pool([Case(Volume(image), Annotation(labels))], training, device)
    module = build(config, 1, 2).to(device)
    (stage,) = stages(config, training, pool)
    for _ in stage.prepare(module):
        pass
    batch = stage.sample(torch.Generator().manual_seed(0))
    before = memory(device)
    stage.loss(module, batch, 0).backward()
    width = detector_for((size, size, size), config).width
    return {
        "step_mib": (peak(device) - before) / 2**20,
        "projections_mib": 4 * config.directions * size * width / 2**20,
    }


def memory(device: torch.device) -> int:
    """Bytes that this process holds now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss


def peak(device: torch.device) -> int:
    """Bytes that this process held at most."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_bytes()


if __name__ == "__main__":
    main()
