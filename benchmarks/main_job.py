"""Measure the dense mask from a few painted slices, beside what else a user would pick.

The volumes of `volumes.py`, real and generated, are annotated by whole orthogonal slices;
everything else is unlabeled. Three methods see the same slices: ours, `napari_volseg.train`
with its defaults for --minutes; and of `rivals.py` a random forest and a random walker.

Reported is the mean foreground IoU over the voxels that were not annotated, and for
ours the seconds of training and of prediction. The phantom's numbers of slices are those
of the 3D U-Net paper's Table 2.

    python benchmarks/main_job.py --data FOLDER [--minutes 5] [--only NAME ...] [-o FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from rivals import random_forest, walker
from volumes import agreement, case_of, main_cases

from napari_volseg import TrainingConfig
from napari_volseg import train as train_network
from napari_volseg.data.annotation import UNLABELED, Annotation, Case
from napari_volseg.inference.predict import predict
from napari_volseg.training import loop


def ours(
    case: Case, truth: Annotation, minutes: float, seed: int, device: str = "cpu"
) -> tuple[np.ndarray, dict[str, float]]:
    """Train with the defaults and predict; return the labels, and what it came to."""
    began = time.perf_counter()
    config = TrainingConfig(minutes=minutes, seed=seed, device=device)
    for event in train_network(case, config):
        last = event
    trained = time.perf_counter()
    labels = np.zeros(case.volume.shape, np.uint16)
    confidence = np.zeros(case.volume.shape, np.float32)
    for piece in predict(last.checkpoint, case.volume, device=device):
        labels[piece.region] = piece.labels
        confidence[piece.region] = piece.probabilities.max(0)
    predicted = time.perf_counter()
    return labels, {
        "calibration_error": calibration_error(confidence, labels == truth.labels, case, truth),
        "train_s": trained - began,
        "predict_s": predicted - trained,
        "steps": last.step,
        "held_out_iou": last.checkpoint.score,
    }


def count_own_time() -> None:
    """Let minutes of training be this process's CPU time, whatever else the machine does.

    With one thread, as with OMP_NUM_THREADS=1, it is the time of one core.
    """
    loop.time = SimpleNamespace(perf_counter=time.process_time)


def calibration_error(
    confidence: np.ndarray, right: np.ndarray, case: Case, truth: Annotation
) -> float:
    """Return the expected calibration error over what was not annotated, in ten bins.

    Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3.
    """
    counted = (case.annotation.labels == UNLABELED) & (truth.labels != UNLABELED)
    sure, right = confidence[counted], right[counted]
    bins = np.minimum((sure * 10).astype(int), 9)
    gap = np.bincount(bins, sure) - np.bincount(bins, right)
    return float(np.abs(gap).sum() / len(sure))


def main() -> None:
    """Run what is asked for; results are kept after each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the real volumes; else phantom only")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of cases")
    parser.add_argument("--no-rivals", action="store_true", help="only ours")
    parser.add_argument("-o", type=Path, default=Path("out/main_job.json"))
    arguments = parser.parse_args()
    machine = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    table = {"machine": machine, "minutes": arguments.minutes, "cases": {}}
    arguments.o.parent.mkdir(parents=True, exist_ok=True)
    print(f"{'case':20} {'ours':>6} {'forest':>7} {'walker':>7}  ({machine})")
    for name in arguments.only or main_cases(arguments.data):
        case, truth = case_of(arguments.data, name)
        labels, row = ours(case, truth, arguments.minutes, arguments.seed)
        row["ours"] = agreement(labels, case, truth).iou
        if not arguments.no_rivals:
            row["forest"] = agreement(random_forest(case, arguments.seed), case, truth).iou
            row["walker"] = agreement(walker(case), case, truth).iou
        table["cases"][name] = row
        arguments.o.write_text(json.dumps(table, indent=1))
        rivals = [row.get(rival, float("nan")) for rival in ("forest", "walker")]
        print(f"{name:20} {row['ours']:6.3f} {rivals[0]:7.3f} {rivals[1]:7.3f}", flush=True)


if __name__ == "__main__":
    main()
