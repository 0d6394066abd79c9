"""What computing features twice saves in memory, and what it costs in time.

    python benchmarks/recompute.py [--models unet3d] [--shapes 64x128x128,96x256x256]
        [--batches 2,8] [--steps 8] [--json FILE]

The network alone, without a pixel classifier and without a look at held-out voxels, takes a few
steps in a fresh process, with the settings that `auto` chooses for a CPU and five minutes, but
for the batch: the resident memory at most over what it held before, beside what is foreseen, and
the median time of a step on one core (own time, not wall clock).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import psutil
import torch
from alone import memory_alone, peak_bytes
from memory_plan import CLASSES, SHAPES, config_of, noise

from napari_volseg import train
from napari_volseg.models.registry import get_architecture
from napari_volseg.training.estimate_memory import estimate

if TYPE_CHECKING:
    from napari_volseg.data.annotation import Case
    from napari_volseg.sparse.config import TrainingConfig

WAYS = ("never", "always")


def settings(name: str, case: Case, way: str, batch: int, steps: int) -> TrainingConfig:
    """Return the settings of a training of the network alone."""
    config = config_of(name, case)
    options = dict(config.options)
    if "filter_scales" in options:
        options["filter_scales"] = ()
    return replace(
        config, options=options, recompute=way, batch_size=batch, steps=steps, held_out=0.0
    )


def measure(name: str, size: str, way: str, batch: int, steps: int) -> None:
    """Train in this process; print, as JSON, what it took and what was foreseen."""
    torch.set_num_threads(1)
    z, y, x = (int(n) for n in size.split("x"))
    case = noise((z, y, x))
    config = settings(name, case, way, batch, steps)
    idle = psutil.Process().memory_info().rss
    seconds, began = [], time.process_time()
    for event in train(case, config):
        if event.loss is not None:
            seconds.append(time.process_time() - began)
        began = time.process_time()
    measured = (peak_bytes() - idle) / 1e6
    cpu = torch.device("cpu")
    network = get_architecture(name)
    found = estimate(
        network,
        network.configure(config, [case], cpu),
        config,
        ((1, (z, y, x), case.volume.spacing),),
        CLASSES,
        cpu,
    )
    assert found is not None
    answer = {
        "foreseen_mb": (found.fixed + found.step) / 1e6,
        "measured_mb": measured,
        "step_mb": found.step / 1e6,
        "seconds": median(seconds[1:]),
    }
    print(json.dumps(answer))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="unet3d")
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--batches", default="2,8")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--alone", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        name, size, way, batch = arguments.alone
        measure(name, size, way, int(batch), arguments.steps)
        return
    rows = []
    print(f"{'':18}{'':14}{'batch':>6}{'twice':>8}{'foreseen MB':>13}{'measured MB':>13}", end="")
    print(f"{'step MB':>9}{'s a step':>10}")
    for size in arguments.shapes.split(","):
        for name in arguments.models.split(","):
            for batch in arguments.batches.split(","):
                for way in WAYS:
                    own = ("--steps", str(arguments.steps), "--alone", name, size, way, batch)
                    found = memory_alone(__file__, *own)
                    rows.append({"model": name, "shape": size, "batch": batch, "twice": way})
                    rows[-1] |= found
                    print(
                        f"{name:18}{size:14}{batch:>6}{way:>8}{found['foreseen_mb']:13.0f}"
                        f"{found['measured_mb']:13.0f}{found['step_mb']:9.0f}"
                        f"{found['seconds']:10.2f}",
                        flush=True,
                    )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
