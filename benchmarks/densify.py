"""Measure how good a dense mask is from how little paint in how little time.

Every volume is annotated in every way that is asked for (whole slices, or scribbles on
1% of the voxels); the quick methods of `rivals.py` and ours, after each number of
minutes, are compared with the truth where nobody painted: mean foreground IoU. "Rival"
is the best of the quick methods on that volume and annotation. Every pair of volume and
annotation adds a row, and at the end each number of minutes has a summary: the lowest
and the mean difference to the rival, and the largest loss by more slices.

    python benchmarks/densify.py [--data FOLDER] [--volumes NAME ...]
        [--annotations 1_1_1 3_3_2 5_5_3 scribbles] [--minutes 1 5 15] [--seeds 0]
        [--device cpu] [--no-rivals] [--own-time] [-o out/densify.json]
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np
from main_job import count_own_time, ours
from rivals import random_forest, shape_interpolation, walker
from volumes import CT, REAL, agreement, annotated, known_volume

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.generated import KINDS
from napari_volseg.inference.device import describe_device, pick_device

WHOLE_SLICES = ("1_1_1", "3_3_2", "5_5_3")


def rivals_of(case: Case, truth: Annotation, how: str, seed: int) -> dict[str, float]:
    """IoU of each quick method."""
    found = {
        "forest": random_forest(case, seed),
        "forest+position": random_forest(case, seed, position=True),
        "walker": walker(case),
    }
    if how in WHOLE_SLICES:
        found["shape"] = shape_interpolation(case)
    return {name: agreement(labels, case, truth).iou for name, labels in found.items()}


def summary(rows: list[dict], minutes: float) -> str:
    """Say how one budget did over all rows."""
    key = f"{minutes:g}"
    measured = [row for row in rows if key in row["ours"]]
    gains = [row["ours"][key] - max(row["rivals"].values()) for row in measured if row["rivals"]]
    losses = []
    for row in measured:
        if row["annotation"] not in WHOLE_SLICES:
            continue
        fewer = WHOLE_SLICES[: WHOLE_SLICES.index(row["annotation"])]
        losses += [
            other["ours"][key] - row["ours"][key]
            for other in measured
            if other["annotation"] in fewer
            and (other["volume"], other["seed"]) == (row["volume"], row["seed"])
        ]
    calibration = np.mean([row["calibration_error"][key] for row in measured])
    text = f"{key} minutes, {len(measured)} rows: calibration error {calibration:.3f}"
    if gains:
        text += f"; against the rival {min(gains):+.3f} at worst, {np.mean(gains):+.3f} in the mean"
    if losses:
        text += f"; more slices lose {max(max(losses), 0):.3f} at most"
    return text


def main() -> None:
    """Run what is asked for; results are kept after each row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the real volumes")
    parser.add_argument("--volumes", nargs="*", help="names; default: all there are")
    parser.add_argument("--annotations", nargs="*", default=[*WHOLE_SLICES, "scribbles"])
    parser.add_argument("--minutes", type=float, nargs="*", default=[1.0, 5.0, 15.0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-rivals", action="store_true", help="only ours")
    parser.add_argument(
        "--own-time",
        action="store_true",
        help="minutes of this process's CPU time: of one thread's, whatever else the machine does",
    )
    parser.add_argument("-o", type=Path, default=Path("out/densify.json"))
    arguments = parser.parse_args()
    if arguments.own_time:
        count_own_time()
    names = arguments.volumes or [*(REAL if arguments.data else ()), "phantom", CT, *KINDS]
    machine = f"{platform.machine()}, {describe_device(pick_device(arguments.device))}"
    arguments.o.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    print(machine)
    for name in names:
        for how in arguments.annotations:
            for seed in arguments.seeds:
                volume, truth = known_volume(arguments.data, name, seed)
                case = Case(volume, annotated(truth, how, seed))
                row = {"volume": name, "annotation": how, "seed": seed}
                row |= {"rivals": {}, "ours": {}, "calibration_error": {}}
                if not arguments.no_rivals:
                    row["rivals"] = rivals_of(case, truth, how, seed)
                for minutes in arguments.minutes:
                    labels, came_to = ours(case, truth, minutes, seed, arguments.device)
                    row["ours"][f"{minutes:g}"] = agreement(labels, case, truth).iou
                    row["calibration_error"][f"{minutes:g}"] = came_to["calibration_error"]
                rows.append(row)
                arguments.o.write_text(
                    json.dumps({"machine": machine, "device": arguments.device, "rows": rows})
                )
                quick = " ".join(f"{n} {v:.3f}" for n, v in row["rivals"].items())
                net = " ".join(f"{m} min {v:.3f}" for m, v in row["ours"].items())
                print(f"{name:20} {how:10} seed {seed}: {net} | {quick}", flush=True)
    for minutes in arguments.minutes:
        print(summary(rows, minutes))


if __name__ == "__main__":
    main()
