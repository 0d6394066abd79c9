"""Correct and train on, or begin afresh: time to the same IoU.

    python benchmarks/warm.py [--data FOLDER] [--cases phantom nuclei_1135 ...] [--minutes 1.5]
        [--own-time] [--json FILE]

A model is trained for --minutes on (2, 2, 1) slices. Then two more slices are painted as the
truth says, those that `suggest` puts first. From there a training of --minutes starts afresh,
and others, of a third, a sixth and a twelfth of them, go on from the model. Mean
foreground IoU where nobody painted, of the model as it is at the end; and how many times as
fast the shortest training is that goes on and is as good as the one that starts afresh.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from main_job import count_own_time
from volumes import agreement, annotated, known_volume

from napari_volseg import TrainingConfig, predict_volume, suggest, train
from napari_volseg.data.annotation import Case
from napari_volseg.data.tiles import slice_region

if TYPE_CHECKING:
    from napari_volseg.data.annotation import Annotation
    from napari_volseg.models.checkpoint import Checkpoint

CASES = ("phantom", "nuclei_1135", "hippocampus_001")
PARTS = (12, 6, 3)
ADDED = 2


def trained(case: Case, minutes: float, resume: Checkpoint | None = None) -> Checkpoint:
    """Train for so long; return the model."""
    for event in train(case, TrainingConfig(minutes=minutes), resume=resume):
        last = event
    assert last.checkpoint is not None
    return last.checkpoint


def corrected(case: Case, truth: Annotation, model: Checkpoint) -> Case:
    """Paint the slices that are suggested first."""
    labels = case.annotation.labels.copy()
    *_, suggested = suggest(model, case.volume, case.annotation, n=ADDED)
    for found in suggested.slices:
        region = slice_region(labels.shape, found.axis, found.index)
        labels[region] = truth.labels[region]
    return replace(case, annotation=replace(case.annotation, labels=labels))


def measure(folder: Path | None, name: str, minutes: float) -> dict[str, float]:
    """Return the IoU of every training, and the ratio of times."""
    volume, truth = known_volume(folder, name)
    case = Case(volume, annotated(truth, "2_2_1"))
    first = trained(case, minutes)
    after = corrected(case, truth, first)

    def iou(model: Checkpoint) -> float:
        return float(agreement(np.asarray(predict_volume(model, volume)), after, truth).iou)

    row = {"before": iou(first), "afresh": iou(trained(after, minutes))}
    faster = 0.0
    for part in PARTS:
        row[f"warm_1/{part}"] = iou(trained(after, minutes / part, first))
        if not faster and row[f"warm_1/{part}"] >= row["afresh"]:
            faster = float(part)
    return row | {"times_faster": faster}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the real volumes")
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--own-time", action="store_true", help="minutes of its own CPU time")
    arguments = parser.parse_args()
    if arguments.own_time:
        count_own_time()
    rows = {}
    for name in arguments.cases:
        rows[name] = measure(arguments.data, name, arguments.minutes)
        figures = "  ".join(f"{key} {value:.3f}" for key, value in rows[name].items())
        print(f"{name:20} {figures}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
