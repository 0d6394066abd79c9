"""What a prediction adds to the forward passes that it needs, and MONAI's beside it, in turns.

    python benchmarks/prediction.py [--turns 3] [--size 0] [--no-peer] [--json FILE]

The network that `auto` chooses for the kidney phantom, untrained, over the phantom (or a cube
of noise of --size voxels): alone, with its pixel classifier, and with the second look. Ours is
`predict` from the image to labels and calibrated probabilities of every region. Bare are the
forward passes on the same tiles, context included, without reading, probabilities and labels.
MONAI's is its sliding_window_inference of the same network over the standardized image with the
same window and the same context on each side. Rows are million voxels a second at the median
of the turns, and how fast it is beside the bare passes of the same turn, at the median. Memory
is the resident memory of a process that does that alone, at most, and what it holds before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from alone import memory_alone, print_memory
from monai.inferers import sliding_window_inference
from volumes import annotated, known_volume

from napari_volseg import TrainingConfig
from napari_volseg.data.annotation import Case, default_classes
from napari_volseg.data.intensity import measure_intensity, standardize
from napari_volseg.data.tiles import crop_around, read_block
from napari_volseg.inference.device import describe_device
from napari_volseg.inference.predict import predict, prepare
from napari_volseg.models.belief import Belief
from napari_volseg.models.checkpoint import Checkpoint
from napari_volseg.models.registry import get_architecture
from napari_volseg.models.unet3d import build, network_reach
from napari_volseg.sparse.filters import averaged
from napari_volseg.sparse.position import with_region_position
from napari_volseg.sparse.second_look import second_reach

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_volseg.data.volume import Volume

ALONE, BESIDE, AGAIN = "network", "network and classifier", "and second look"
EVERY = (slice(None), slice(None))


def untrained(what: str, size: int) -> tuple[Checkpoint, Volume]:
    """Return `auto`'s network of random weights, and the volume."""
    volume, truth = known_volume(None, "phantom")
    case = Case(volume, annotated(truth, "2_2_1"))
    training = TrainingConfig(device="cpu")
    config = get_architecture("unet3d").configure(training, [case], torch.device("cpu"))
    if what == ALONE:
        config = replace(config, filter_scales=())
    if what != AGAIN:
        config = replace(config, second_look=False)
    ids = truth.class_ids
    torch.manual_seed(0)
    module = build(config, volume.channels, len(ids))
    if module.second is not None:
        # One that begins with zeros has nothing to say and is left out.
        for half in module.second.halves:
            torch.nn.init.normal_(half.classify.weight)
    checkpoint = Checkpoint(
        model="unet3d", config=asdict(config), training=training.to_json(),
        channels=volume.channels, classes=default_classes(ids), spacing=volume.spacing,
        unit=volume.unit, intensity=measure_intensity(volume), step=1, seconds=1, score=None,
        iou=(None,) * len(ids), belief=Belief(shift=(0.0,) * len(ids)),
        weights=module.state_dict(),
    )  # fmt: skip
    if size:
        noise = np.random.default_rng(0).normal(100, 20, (volume.channels, *(size,) * 3))
        volume = replace(volume, image=noise.astype(np.float32))
    return checkpoint, volume


def ours(checkpoint: Checkpoint, volume: Volume) -> Callable[[], None]:
    """Return our prediction."""

    def run() -> None:
        for _ in predict(checkpoint, volume, device="cpu"):
            pass

    return run


def bare(checkpoint: Checkpoint, volume: Volume) -> Callable[[], None]:
    """Return the forward passes that it needs, on blocks of our tiles' sizes."""
    predictor = prepare(checkpoint, volume, "cpu")
    module: Any = predictor.module
    config: Any = predictor.config
    channels = volume.channels + 3 * config.position

    @torch.inference_mode()
    def run() -> None:
        for tile in predictor.tiles:
            block = torch.zeros(1, channels, *(side.stop - side.start for side in tile.read))
            shape, looked = block.shape[2:], tile.trim
            if second := module.second:
                reach = second_reach(config.voxel)
                looked, within = crop_around(tile.trim, reach, second.cells, shape)
            seen, _ = crop_around(looked, network_reach(config), config.divisor, shape)
            module.unet(block[(*EVERY, *seen)])
            if module.pixels is None:
                continue
            responses = module.pixels.responses(block, looked)
            logits = module.pixels.over(responses)
            if second:
                coarse = averaged(logits[0], second.cells)
                maps = second.spread(coarse, within)
                inner = [part[(*EVERY, *within)] for part in responses]
                second.over(module.pixels, inner, maps)

    return run


def monai(checkpoint: Checkpoint, volume: Volume) -> Callable[[], None]:
    """Return MONAI's prediction with the same network and window, to labels."""
    predictor = prepare(checkpoint, volume, "cpu")
    module: Any = predictor.module
    config: Any = predictor.config
    reach = network_reach(config)
    core = predictor.architecture.walk(config, volume.shape).core
    whole = tuple(slice(0, n) for n in volume.shape)
    window = [min(c + 2 * r, n) for c, r, n in zip(core, reach, volume.shape, strict=True)]
    # What a window of its sees of context on each side, it averages with its neighbors.
    overlap = [
        2 * r / w if w < n else 0 for r, w, n in zip(reach, window, volume.shape, strict=True)
    ]

    @torch.inference_mode()
    def run() -> None:
        image = torch.from_numpy(standardize(read_block(volume, whole), predictor.intensity))
        image = with_region_position(image, whole, volume.shape)
        logits = sliding_window_inference(image[None], window, 1, module.unet, overlap)
        logits[0].softmax(0).argmax(0)

    return run


WAYS = {"ours": ours, "bare": bare, "monai": monai}


def compare(what: str, names: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Run every way in turns."""
    checkpoint, volume = untrained(what, arguments.size)
    runs = {name: WAYS[name](checkpoint, volume) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(arguments.turns):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    voxels = np.prod(volume.shape) / 1e6
    return {
        name: {
            "mvoxels_per_s": voxels / statistics.median(times),
            "speed": statistics.median(b / t for b, t in zip(seconds["bare"], times, strict=True)),
            **memory_alone(__file__, "--alone", what, name, "--size", str(arguments.size)),
        }
        for name, times in seconds.items()
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--size", type=int, default=0, help="edge of a cube; 0: the phantom")
    parser.add_argument("--no-peer", action="store_true", help="leave MONAI out")
    parser.add_argument("--alone", nargs=2, metavar=("WHAT", "WAY"), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    if arguments.alone:
        what, name = arguments.alone
        print_memory(WAYS[name](*untrained(what, arguments.size)))
        return
    found = {}
    print(describe_device(torch.device("cpu")))
    print(f"{'':24}{'':8}{'Mvoxel/s':>9}{'speed':>7}{'peak MB':>9}{'before':>8}")
    for what in (ALONE, BESIDE, AGAIN):
        peer = what == ALONE and not arguments.no_peer
        found[what] = compare(what, ["ours", "bare"] + ["monai"] * peer, arguments)
        for name, row in found[what].items():
            memory = f"{row['peak_mb']:9.0f}{row['idle_mb']:8.0f}"
            figures = f"{row['mvoxels_per_s']:9.3f}{row['speed']:7.2f}"
            print(f"{what:24}{name:8}{figures}{memory}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
