"""Measure the dense mask from a few painted slices, beside what else a user would pick.

Real annotated volumes (a folder with the layout below) and the generated kidney phantom
are annotated by whole orthogonal slices, at positions round((i + 1) * size / (n + 1)) of
each axis; everything else is unlabeled. Three methods see the same slices:

- ours: `napari_volseg.train` with its defaults for --minutes;
- a random forest on multi-scale 3D filter responses (what ilastik and Labkit do):
  scikit-image's multiscale_basic_features, 100 trees;
- a random walker seeded by the annotation: scikit-image's, beta 130, gray values scaled
  by their 1st and 99th percentile.

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

import numpy as np
import torch
from skimage.feature import multiscale_basic_features
from skimage.segmentation import random_walker
from sklearn.ensemble import RandomForestClassifier

from napari_volseg import TrainingConfig, evaluate, predict_volume, read_annotation, read_volume
from napari_volseg import train as train_network
from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.phantom import kidney_phantom
from napari_volseg.data.samples import annotate_slices

# name: image, truth, value that means unlabeled in the truth (-1: none), slices across (z, y, x)
REAL = {
    "nuclei_1135": ("plant_nuclei/nuclei_1135_image.ome.tif", "labels", -1, (3, 3, 2)),
    "nuclei_1136": ("plant_nuclei/nuclei_1136_image.ome.tif", "labels", -1, (3, 3, 2)),
    "lightsheet_vessels": ("lightsheet_vessels/vessels_image.tif", "labels", -1, (3, 3, 2)),
    "plant_cells": ("plant_cells/ovule_image.ome.tif", "labels", 0, (2, 2, 2)),
    "hippocampus_001": ("hippocampus_mri/hippocampus_001_image.nii.gz", "labels", -1, (3, 3, 2)),
    "hippocampus_003": ("hippocampus_mri/hippocampus_003_image.nii.gz", "labels", -1, (3, 3, 2)),
}
TABLE_2 = ((1, 1, 1), (2, 2, 1), (3, 3, 2), (5, 5, 3))


def cases(folder: Path | None) -> dict[str, tuple[Case, Annotation]]:
    """Every case by name: what is painted, and the truth."""
    found = {}
    if folder is not None:
        for name, (image, kind, unlabeled, counts) in REAL.items():
            volume = read_volume(folder / image)
            truth = read_annotation(folder / image.replace("image", kind), unlabeled=unlabeled)
            found[name] = (Case(volume, annotate_slices(truth, counts)), truth)
    volume, truth = kidney_phantom()
    for counts in TABLE_2:
        name = "phantom_" + "_".join(map(str, counts))
        found[name] = (Case(volume, annotate_slices(truth, counts)), truth)
    return found


def ours(case: Case, minutes: float, seed: int) -> tuple[np.ndarray, dict[str, float]]:
    """Train with the defaults and predict."""
    began = time.perf_counter()
    config = TrainingConfig(minutes=minutes, seed=seed, device="cpu")
    for event in train_network(case, config):
        last = event
    trained = time.perf_counter()
    labels = predict_volume(last.checkpoint, case.volume, device="cpu")
    return labels, {
        "train_s": trained - began,
        "predict_s": time.perf_counter() - trained,
        "steps": last.step,
        "held_out_iou": last.checkpoint.score,
    }


def random_forest(case: Case, seed: int) -> np.ndarray:
    """Label every voxel by the filter responses of the labeled ones."""
    image = np.asarray(case.volume.image).astype(np.float32)
    responses = np.concatenate(
        [multiscale_basic_features(channel, sigma_min=0.5, sigma_max=8) for channel in image], -1
    )
    labels = case.annotation.labels
    forest = RandomForestClassifier(100, max_depth=25, n_jobs=2, random_state=seed)
    forest.fit(responses[labels > 0], labels[labels > 0])
    return np.stack(
        [forest.predict(plane.reshape(-1, plane.shape[-1])) for plane in responses]
    ).reshape(labels.shape)


def walker(case: Case) -> np.ndarray:
    """Let the annotation flood along similar gray values."""
    image = np.moveaxis(np.asarray(case.volume.image).astype(np.float32), 0, -1)
    # A few bright voxels must not set the scale: the walker is at its best like this.
    low, high = np.percentile(image, (1, 99), axis=(0, 1, 2))
    scaled = (image - low) / (high - low)
    return random_walker(
        scaled, case.annotation.labels.astype(np.int32), beta=130, mode="cg_j", channel_axis=-1
    )


def iou(found: np.ndarray, case: Case, truth: Annotation) -> float:
    """Mean foreground IoU over the voxels that were not annotated."""
    result = evaluate(
        Annotation(found.astype(np.uint8)),
        truth,
        spacing=case.volume.spacing,
        annotation=case.annotation,
    )
    return result.foreground.iou


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
    for name, (case, truth) in cases(arguments.data).items():
        if arguments.only and name not in arguments.only:
            continue
        labels, row = ours(case, arguments.minutes, arguments.seed)
        row["ours"] = iou(labels, case, truth)
        if not arguments.no_rivals:
            row["forest"] = iou(random_forest(case, arguments.seed), case, truth)
            row["walker"] = iou(walker(case), case, truth)
        table["cases"][name] = row
        arguments.o.write_text(json.dumps(table, indent=1))
        rivals = [row.get(rival, float("nan")) for rival in ("forest", "walker")]
        print(f"{name:20} {row['ours']:6.3f} {rivals[0]:7.3f} {rivals[1]:7.3f}", flush=True)


if __name__ == "__main__":
    main()
