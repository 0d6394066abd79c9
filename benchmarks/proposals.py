"""Measure whether training on proposals between painted slices helps.

The volumes of the main job (see `volumes.py`) are annotated by whole slices; labels are
proposed between those of xy, and the default network is trained for --steps with each of
some weights of the proposals. Reported is the mean foreground IoU where nobody painted.

    python benchmarks/proposals.py --data FOLDER [--only NAME ...] [--steps 100]
        [--weights 0 0.3 1] [--seeds 0] [-o out/proposals.json]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from volumes import agreement, case_of, main_cases

from napari_volseg import TrainingConfig, predict_volume
from napari_volseg import train as train_network
from napari_volseg.review.between import propose_between

if TYPE_CHECKING:
    from napari_volseg.data.annotation import Case


def with_proposals(case: Case) -> Case:
    """Propose between the xy slices, as the window does."""
    slices = sorted(index for axis, index in case.annotation.complete if axis == 0)
    proposals = np.zeros_like(case.annotation.labels)
    for found in propose_between(case.volume, case.annotation.labels, 0, slices):
        if found.region is not None:
            proposals[found.region] = found.labels
    return replace(case, proposals=proposals)


def main() -> None:
    """Run what is asked for; results are kept after each training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the real volumes; else phantom only")
    parser.add_argument("--only", nargs="*", help="names of cases")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--weights", type=float, nargs="*", default=[0, 0.3, 1])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("-o", type=Path, default=Path("out/proposals.json"))
    arguments = parser.parse_args()
    arguments.o.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in arguments.only or main_cases(arguments.data):
        case, truth = case_of(arguments.data, name)
        proposed = with_proposals(case)
        for seed in arguments.seeds:
            for weight in arguments.weights:
                config = TrainingConfig(
                    steps=arguments.steps, seed=seed, device="cpu", proposal_weight=weight
                )
                for event in train_network(proposed, config):
                    last = event
                labels = predict_volume(last.checkpoint, case.volume, device="cpu")
                iou = agreement(labels, case, truth).iou
                rows.append({"case": name, "seed": seed, "weight": weight, "iou": iou})
                print(f"{name:20} seed {seed} weight {weight:g}: IoU {iou:.3f}", flush=True)
                document = {"steps": arguments.steps, "rows": rows}
                arguments.o.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
