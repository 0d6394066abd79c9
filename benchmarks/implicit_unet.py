"""Measure the Implicit U-Net against its U-Net: parameters, time and memory.

The claim of Marimont and Tarroni (2022, table 1, lungs): 0.72 of the U-Net's training time,
0.73 of its training memory, 0.69 of its inference time, with 40% fewer parameters. Both
networks get the same patches, batch, width, volume and training loop, in one run:

- seconds a training step, sampling included, and seconds to predict the volume: medians,
  the networks taking turns;
- memory: the peak of three training steps above what was in use before, each network in
  a process of its own (resident memory on a CPU, torch's allocations on a GPU).

The volume is noise with one small bright ball, as a lung holds one tumor: how much the
Implicit U-Net saves at prediction depends on how much boundary there is to decode, so the
points that it decoded are reported too. The U-Net comes twice: as in the paper (five blocks
of two convolutions), and with the very encoder of the Implicit U-Net.

    python benchmarks/implicit_unet.py [--device cuda] [--channels 32] [--patch 96 160 160]
                                       [--batch 6] [--steps 30] [--rounds 3] [-o FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
import torch

from napari_volseg import TrainingConfig, predict_volume
from napari_volseg import train as train_network
from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.volume import Volume
from napari_volseg.inference.device import describe_device, pick_device
from napari_volseg.models.implicit_unet import ImplicitConfig, ImplicitUNet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_volseg.models.checkpoint import Checkpoint
    from napari_volseg.training.events import Progress

NETWORKS = {
    "implicit_unet": ("implicit_unet", "paper"),
    "unet3d_deep": ("unet3d_deep", "paper"),
    "same_encoder": ("unet3d_deep", "same_encoder"),
}
PAPER = {"parameters": 0.60, "train_s": 0.72, "memory_mb": 0.73, "predict_s": 0.69}
MEMORY_STEPS = 3


def tumor(size: tuple[int, ...]) -> Case:
    """Noise around one ball with a diameter of an eighth of the volume, all of it labeled."""
    distance = sum(
        ((axis - n * 0.4) / (n / 16)) ** 2 for axis, n in zip(np.indices(size), size, strict=True)
    )
    labels = np.where(distance < 1, 2, 1).astype(np.uint8)
    image = labels * 5 + np.random.default_rng(0).normal(0, 1, size)
    return Case(Volume(image[None].astype(np.float32)), Annotation(labels))


def training(name: str, arguments: argparse.Namespace, steps: int) -> Iterator[Progress]:
    """Begin to train a network with the settings that all of them share."""
    model, preset = NETWORKS[name]
    options = {"channels": arguments.channels, "patch": tuple(arguments.patch)}
    if model == "implicit_unet":
        paper = ImplicitConfig()
        narrower = arguments.channels / paper.channels
        smaller = np.prod(arguments.patch) / np.prod(paper.patch)
        options["hidden"] = max(8, round(paper.hidden * narrower))
        options["points"] = max(100, round(paper.points * smaller))
    config = TrainingConfig(
        model=model,
        preset=preset,
        options=options,
        steps=steps,
        device=arguments.device,
        batch_size=arguments.batch,
        learning_rate=arguments.rate,
        held_out=0,
    )
    return train_network(tumor(tuple(round(1.5 * n) for n in arguments.patch)), config)


def peak_mb(name: str, arguments: argparse.Namespace) -> float:
    """Peak of a few training steps above what was in use before, MB; in a fresh process only."""
    events = training(name, arguments, MEMORY_STEPS)
    next(events)
    cuda = torch.device(pick_device(arguments.device)).type == "cuda"

    def used() -> float:
        if cuda:
            return torch.cuda.max_memory_allocated() / 1e6
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

    before = used()
    for _ in events:
        pass
    return used() - before


def measure_training(arguments: argparse.Namespace) -> tuple[dict, dict[str, Checkpoint]]:
    """Train all networks in turns; return seconds a step and what came of each."""
    events = {name: training(name, arguments, arguments.steps) for name in NETWORKS}
    seconds: dict[str, list[float]] = {name: [] for name in NETWORKS}
    last = {name: next(run) for name, run in events.items()}
    for step in range(arguments.steps):
        for name, run in events.items():
            began = time.perf_counter()
            last[name] = next(run)
            if 0 < step < arguments.steps - 1:  # The first warms up, the last one also scores.
                seconds[name].append(time.perf_counter() - began)
    return (
        {name: statistics.median(values) for name, values in seconds.items()},
        {name: event.checkpoint for name, event in last.items()},
    )


def measure_prediction(
    checkpoints: dict[str, Checkpoint], volume: Volume, arguments: argparse.Namespace
) -> dict[str, float]:
    """Predict the volume with all networks in turns; return the seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in NETWORKS}
    for _ in range(arguments.rounds + 1):
        for name, checkpoint in checkpoints.items():
            began = time.perf_counter()
            predict_volume(checkpoint, volume, device=arguments.device)
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def decoded_part(checkpoint: Checkpoint, volume: Volume, device: str) -> float:
    """Points that the Implicit U-Net decodes to predict a volume, for each of its voxels."""
    points = 0
    decode = ImplicitUNet.decode

    def counted(self: ImplicitUNet, maps: list, some: torch.Tensor, shape: tuple) -> torch.Tensor:
        nonlocal points
        points += some.shape[1]
        return decode(self, maps, some, shape)

    with patch.object(ImplicitUNet, "decode", counted):
        predict_volume(checkpoint, volume, device=device)
    return points / np.prod(volume.shape)


def fresh_peak_mb(name: str) -> float:
    """Run ``peak_mb`` in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory", name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measure, print the table with the paper's ratios beside, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--patch", type=int, nargs=3, default=(96, 160, 160))
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3, help="predictions of each network")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--memory", choices=NETWORKS, help=argparse.SUPPRESS)
    parser.add_argument("-o", type=Path, default=Path("out/implicit_unet.json"))
    arguments = parser.parse_args()
    if arguments.memory:
        print(peak_mb(arguments.memory, arguments))
        return
    memory = {name: fresh_peak_mb(name) for name in NETWORKS}
    train_s, checkpoints = measure_training(arguments)
    volume = tumor(tuple(round(1.5 * n) for n in arguments.patch)).volume
    table = {
        "parameters": {
            name: sum(p.numel() for p in checkpoint.module()[0].parameters())
            for name, checkpoint in checkpoints.items()
        },
        "train_s": train_s,
        "memory_mb": memory,
        "predict_s": measure_prediction(checkpoints, volume, arguments),
    }
    decoded = decoded_part(checkpoints["implicit_unet"], volume, arguments.device)
    device = describe_device(pick_device(arguments.device))
    settings = {k: v for k, v in vars(arguments).items() if k not in ("memory", "o")}
    print(f"{device}; {settings}; points decoded for a voxel: {decoded:.3f}")
    print(f"{'':12}" + "".join(f"{name:>15}" for name in NETWORKS) + "  ratios  (paper)")
    for what, row in table.items():
        ratios = [row["implicit_unet"] / row[name] for name in list(NETWORKS)[1:]]
        values = "".join(f"{value:15.3f}" for value in row.values())
        print(f"{what:12}{values}  {ratios[0]:.2f} {ratios[1]:.2f}  ({PAPER[what]:.2f})")
    document = {"device": device, "settings": settings, "decoded": float(decoded), "table": table}
    arguments.o.parent.mkdir(parents=True, exist_ok=True)
    arguments.o.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
