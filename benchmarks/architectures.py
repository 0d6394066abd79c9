"""Measure every architecture on the same slices of the same volumes, in the same time.

The kidney phantom and real volumes (a folder, see `volumes.py`) are annotated by whole
orthogonal slices. Every architecture that labels voxels is trained for --minutes with the
settings that `auto` (or --preset) gives it on this device, predicts the volume, and is
compared with the truth where nobody painted: IoU, Dice and mean accuracy (mean of
sensitivity and specificity) of the foreground, and the average surface distance. Each
pair of network and volume has a process of its own, whose peak memory (resident on a CPU,
torch's allocations on CUDA) is reported: volume, network and prediction together.

Wide networks are not at their best in a short budget on a CPU: this is what a user with
that time and that machine gets, not what the papers report.

    python benchmarks/architectures.py [--data FOLDER] [--minutes 1] [--preset auto]
        [--cases NAME ...] [--only NAME ...] [-o out/architectures.json] [--plot FILE.png]
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from volumes import agreement, case_of

from napari_volseg import TrainingConfig, predict_volume
from napari_volseg import train as train_network
from napari_volseg.inference.device import describe_device, pick_device
from napari_volseg.models.registry import architectures

CASES = ("phantom_3_3_2", "nuclei_1135", "lightsheet_vessels", "hippocampus_001")
FIGURES = ("iou", "dice", "mean_accuracy", "asd", "train_s", "predict_s", "memory_mb", "steps")


def measure(name: str, case_name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one architecture on one case and compare it with the truth."""
    case, truth = case_of(arguments.data, case_name)
    config = TrainingConfig(
        model=name, minutes=arguments.minutes, preset=arguments.preset, device=arguments.device
    )
    device = pick_device(arguments.device)
    began = time.perf_counter()
    for event in train_network(case, config):
        last = event
    trained = time.perf_counter()
    labels = predict_volume(last.checkpoint, case.volume, device=arguments.device)
    predicted = time.perf_counter()
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e6
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    found = agreement(labels, case, truth)
    return {
        "iou": found.iou,
        "dice": found.dice,
        "mean_accuracy": found.mean_accuracy,
        "asd": None if np.isnan(found.asd) else found.asd,
        "train_s": trained - began,
        "predict_s": predicted - trained,
        "memory_mb": peak,
        "steps": last.step,
    }


def measure_alone(name: str, case_name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, __file__, "--one", name, case_name, "-o", str(answer)]
        command += ["--minutes", str(arguments.minutes), "--preset", arguments.preset]
        command += ["--device", arguments.device]
        command += ["--data", str(arguments.data)] if arguments.data else []
        subprocess.run(command, check=True)
        row: dict[str, Any] = json.loads(answer.read_text())
    return row


def show(table: dict[str, Any]) -> None:
    """Print the table as Markdown."""
    for case_name, rows in table["cases"].items():
        print(f"\n{case_name} ({table['machine']}, {table['minutes']:g} min)\n")
        print("| network | " + " | ".join(FIGURES) + " |")
        print("|---" * (len(FIGURES) + 1) + "|")
        for name, row in rows.items():
            cells = [_cell(figure, row[figure]) for figure in FIGURES]
            print(f"| {name} | " + " | ".join(cells) + " |")


def _cell(figure: str, value: float | None) -> str:
    if value is None:
        return "-"
    whole = figure in ("memory_mb", "steps", "train_s")
    return f"{value:.0f}" if whole else f"{value:.3f}"


def plot(table: dict[str, Any], path: Path) -> None:
    """Draw the IoU of every network on every volume."""
    mpl.use("Agg")
    names = list(next(iter(table["cases"].values())))
    figure, axes = plt.subplots(1, len(table["cases"]), sharey=True, figsize=(10, 3.6))
    for axis, (case_name, rows) in zip(np.atleast_1d(axes), table["cases"].items(), strict=True):
        values = [rows[name]["iou"] for name in names]
        axis.barh(names, values, color="#4878a8")
        axis.bar_label(axis.containers[0], fmt="%.2f", padding=2, fontsize=8)
        axis.set(title=case_name, xlim=(0, 1.15), xticks=(0, 0.5, 1))
        axis.spines[["top", "right"]].set_visible(False)
    np.atleast_1d(axes)[0].invert_yaxis()
    figure.supxlabel(
        f"mean foreground IoU where nobody painted, {table['minutes']:g} min, {table['machine']}",
        fontsize=9,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run what is asked for; results are kept after each pair."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the real volumes; else phantom only")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--preset", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cases", nargs="*", help="names; default: those that are there")
    parser.add_argument("--only", nargs="*", help="names of networks")
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "CASE"), help=argparse.SUPPRESS)
    parser.add_argument("--plot", type=Path, help="where to draw the IoUs (PNG)")
    parser.add_argument("-o", type=Path, default=Path("out/architectures.json"))
    arguments = parser.parse_args()
    arguments.o.parent.mkdir(parents=True, exist_ok=True)
    if arguments.one:
        arguments.o.write_text(json.dumps(measure(*arguments.one, arguments)))
        return
    device = describe_device(pick_device(arguments.device))
    machine = f"{platform.machine()}, {device}"
    table: dict[str, Any] = {"machine": machine, "minutes": arguments.minutes, "cases": {}}
    for case_name in arguments.cases or (CASES if arguments.data else CASES[:1]):
        rows = table["cases"][case_name] = {}
        for name in arguments.only or architectures():
            rows[name] = measure_alone(name, case_name, arguments)
            print(f"{case_name:20} {name:18} IoU {rows[name]['iou']:.3f}", flush=True)
            arguments.o.write_text(json.dumps(table, indent=1))
    show(table)
    if arguments.plot:
        plot(table, arguments.plot)


if __name__ == "__main__":
    main()
