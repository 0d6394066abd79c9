"""Measure how many slices `suggest` spares an annotator.

Three annotators begin with one slice across each axis. An oracle paints a whole slice at a
time, from the truth; the network is trained for --minutes after each slice, from where it
was, and predicts.

- suggested: the slice that `napari_volseg.suggest` puts first;
- random: any slice that is not complete;
- even: so many slices, evenly spaced, axes in turn ("3" is 1_1_1, "4" is 2_1_1, "5" is
  2_2_1, ...). For other numbers they lie elsewhere, so each number of --even is trained
  afresh, for as long in all as the others until they have so many.

Reported is the mean foreground IoU over the voxels that were not painted, by number of
slices, and the slices that the others need to reach the IoU of evenly spaced ones.

    python benchmarks/suggest.py [--data FOLDER] [--volumes NAME ...] [--minutes 1]
        [--even 6 9 12] [--seeds 0] [--device cpu] [-o out/suggest.json]
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from volumes import Known, agreement, annotated, known_volume

from napari_volseg import TrainingConfig
from napari_volseg import train as train_network
from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.inference.device import describe_device, pick_device
from napari_volseg.inference.predict import predict
from napari_volseg.review.suggest import UncertaintyMap, add_region, empty_map, rank_slices

if TYPE_CHECKING:
    from napari_volseg.models.checkpoint import Checkpoint

FIRST = 3
"""Slices to begin with, one across each axis."""

REAL = ("nuclei_1135", "lightsheet_vessels", "hippocampus_001")


def trained(case: Case, config: TrainingConfig, start: Checkpoint | None = None) -> Checkpoint:
    """Train to the end."""
    for event in train_network(case, config, resume=start):
        last = event
    assert last.checkpoint is not None
    return last.checkpoint


def predicted(
    checkpoint: Checkpoint, case: Case, truth: Annotation, device: str
) -> tuple[float, UncertaintyMap]:
    """Predict; return the IoU where nobody painted, and the map to choose the next slice by."""
    volume = case.volume
    labels = np.zeros(volume.shape, np.uint16)
    uncertainty = empty_map(volume.shape, volume.spacing, len(checkpoint.classes))
    for piece in predict(checkpoint, volume, device=device):
        labels[piece.region] = piece.labels
        add_region(uncertainty, piece.region, piece.probabilities)
    return agreement(labels, case, truth).iou, uncertainty


def random_slice(annotation: Annotation, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a slice that is not complete: first its axis, then its index."""
    while True:
        axis = int(rng.integers(3))
        index = int(rng.integers(annotation.labels.shape[axis]))
        if (axis, index) not in annotation.complete:
            return axis, index


def painted(annotation: Annotation, truth: Annotation, axis: int, index: int) -> Annotation:
    """Paint a whole slice as in the truth."""
    labels = annotation.labels.copy()
    plane = (slice(None),) * axis + (index,)
    labels[plane] = truth.labels[plane]
    return replace(annotation, labels=labels, complete=annotation.complete | {(axis, index)})


def one_by_one(
    known: Known, by_suggestion: bool, most: int, config: TrainingConfig
) -> list[dict[str, Any]]:
    """Paint slice after slice; return the IoU of each number of slices, and what was painted."""
    volume, truth = known
    rng = np.random.default_rng(config.seed)
    annotation, checkpoint = annotated(truth, "1_1_1"), None
    place: tuple[int, int] | None = None
    rows: list[dict[str, Any]] = []
    for slices in range(FIRST, most + 1):
        case = Case(volume, annotation)
        checkpoint = trained(case, config, checkpoint)
        iou, uncertainty = predicted(checkpoint, case, truth, config.device)
        rows.append({"slices": slices, "iou": iou, "last": place})
        if by_suggestion:
            (best,) = rank_slices(uncertainty, annotation, 1)
            place = best.axis, best.index
        else:
            place = random_slice(annotation, rng)
        annotation = painted(annotation, truth, *place)
    return rows


def evenly(known: Known, slices: int, config: TrainingConfig) -> float:
    """Return the IoU of so many evenly spaced slices, after as much training as the others had."""
    volume, truth = known
    counts = "_".join(str((slices + 2 - axis) // 3) for axis in range(3))
    case = Case(volume, annotated(truth, counts))
    longer = replace(config, minutes=config.minutes * (slices - FIRST + 1))
    return predicted(trained(case, longer), case, truth, config.device)[0]


def needed(rows: list[dict[str, Any]], iou: float) -> int | None:
    """Return the fewest slices that reach an IoU."""
    return next((row["slices"] for row in rows if row["iou"] >= iou), None)


def table(runs: list[dict[str, Any]]) -> str:
    """Show the slices needed to reach the IoU of evenly spaced ones, as Markdown."""
    lines = [
        "| volume | seed | even slices | IoU | suggested | fewer by | random |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in runs:
        for slices, iou in run["even"].items():
            suggested, random = (needed(run[how], iou) for how in ("suggested", "random"))
            spared = "-" if suggested is None else f"{1 - suggested / int(slices):.0%}"
            cells = [run["volume"], run["seed"], slices, f"{iou:.3f}"]
            cells += [suggested or "not reached", spared, random or "not reached"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is asked for; results are kept after each volume."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the real volumes; else phantom only")
    parser.add_argument("--volumes", nargs="*", help="names, see volumes.py")
    parser.add_argument("--minutes", type=float, default=1.0, help="of training after each slice")
    parser.add_argument("--even", type=int, nargs="*", default=[6, 9, 12], help="evenly spaced")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("-o", type=Path, default=Path("out/suggest.json"))
    arguments = parser.parse_args()
    if min(arguments.even) < FIRST:
        parser.error(f"--even: all begin with {FIRST} slices")
    machine = f"{platform.machine()}, {describe_device(pick_device(arguments.device))}"
    document = {"machine": machine, "minutes": arguments.minutes, "runs": []}
    arguments.o.parent.mkdir(parents=True, exist_ok=True)
    for name in arguments.volumes or ["phantom", *(REAL if arguments.data else ())]:
        for seed in arguments.seeds:
            known = known_volume(arguments.data, name, seed)
            config = TrainingConfig(minutes=arguments.minutes, seed=seed, device=arguments.device)
            run = {"volume": name, "seed": seed}
            for how in ("suggested", "random"):
                run[how] = one_by_one(known, how == "suggested", max(arguments.even), config)
            run["even"] = {str(n): evenly(known, n, config) for n in arguments.even}
            document["runs"].append(run)
            arguments.o.write_text(json.dumps(document, indent=1))
    print(json.dumps(document))
    print(f"\n{machine}, {arguments.minutes:g} minutes a slice\n\n{table(document['runs'])}")


if __name__ == "__main__":
    main()
