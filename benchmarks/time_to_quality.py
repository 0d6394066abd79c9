"""Measure how good the mask is over the minutes of a training.

One training of --minutes for each case of `volumes.py`: every checkpoint that it hands out
predicts the volume. Reported is the mean foreground IoU over the voxels that were not
painted, by seconds of training; the predictions themselves are not counted. A random forest
(`rivals.py`, with position or without) sees the same paint; its seconds are those of its
features, trees and labels of all voxels.

    python benchmarks/time_to_quality.py [--data FOLDER] [--cases NAME ...] [--minutes 5]
        [--device cpu] [--own-time] [-o out/time_to_quality.json] [--plot FILE.png]
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import torch
from main_job import count_own_time
from matplotlib import pyplot as plt
from rivals import random_forest
from volumes import agreement, case_of, main_cases

from napari_volseg import TrainingConfig, predict_volume
from napari_volseg import train as train_network

if TYPE_CHECKING:
    from napari_volseg.data.annotation import Annotation, Case


def curve(case: Case, truth: Annotation, minutes: float, device: str) -> list[dict[str, float]]:
    """Train once; return the seconds and the IoU of every checkpoint."""
    config = TrainingConfig(minutes=minutes, device=device)
    points = []
    for event in train_network(case, config):
        # The clock of the training stands still meanwhile.
        if event.checkpoint is not None:
            labels = predict_volume(event.checkpoint, case.volume, device=device)
            iou = agreement(labels, case, truth).iou
            points.append({"seconds": event.seconds, "step": event.step, "iou": iou})
            print(f"  {event.seconds:6.0f} s {iou:.3f}", flush=True)
    return points


def forests(case: Case, truth: Annotation) -> dict[str, dict[str, float]]:
    """Seconds and IoU of a random forest, with position and without."""
    found = {}
    for name, position in (("forest", False), ("forest+position", True)):
        began = time.perf_counter()
        labels = random_forest(case, position=position)
        seconds = time.perf_counter() - began
        found[name] = {"seconds": seconds, "iou": agreement(labels, case, truth).iou}
    return found


def plot(table: dict[str, Any], path: Path) -> None:
    """Draw the curve of every case, and the forests beside it."""
    mpl.use("Agg")
    cases = table["cases"]
    figure, axes = plt.subplots(1, len(cases), figsize=(2.6 * len(cases), 3), squeeze=False)
    for axis, (name, row) in zip(axes[0], cases.items(), strict=True):
        seconds, ious = ([p[key] for p in row["ours"]] for key in ("seconds", "iou"))
        axis.plot([s / 60 for s in seconds], ious, "o-", markersize=3, label="ours")
        for rival, marker in (("forest", "^"), ("forest+position", "v")):
            point = row["rivals"][rival]
            axis.plot(point["seconds"] / 60, point["iou"], marker, color="0.4", label=rival)
        axis.set(title=name, xlabel="minutes", xlim=(0, None))
    axes[0][0].set_ylabel("mean foreground IoU")
    axes[0][-1].legend(fontsize="small", loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run what is asked for; results are kept after each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the real volumes; else phantom only")
    parser.add_argument("--cases", nargs="*", help="names; default: all there are")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--own-time", action="store_true", help="see densify.py")
    parser.add_argument("-o", type=Path, default=Path("out/time_to_quality.json"))
    parser.add_argument("--plot", type=Path, help="where to draw the curves (PNG)")
    arguments = parser.parse_args()
    if arguments.own_time:
        count_own_time()
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
    table: dict[str, Any] = {"machine": machine, "minutes": arguments.minutes, "cases": {}}
    arguments.o.parent.mkdir(parents=True, exist_ok=True)
    for name in arguments.cases or main_cases(arguments.data):
        print(f"{name} ({machine})", flush=True)
        case, truth = case_of(arguments.data, name)
        table["cases"][name] = {
            "ours": curve(case, truth, arguments.minutes, arguments.device),
            "rivals": forests(case, truth),
        }
        for rival, point in table["cases"][name]["rivals"].items():
            print(f"  {point['seconds']:6.0f} s {point['iou']:.3f} {rival}", flush=True)
        arguments.o.write_text(json.dumps(table, indent=1))
    if arguments.plot:
        plot(table, arguments.plot)


if __name__ == "__main__":
    main()
