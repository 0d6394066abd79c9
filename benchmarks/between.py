"""Measure how good the labels are that are proposed between painted slices.

Of each volume every xy slice of --gaps + 1 is painted as in the truth; compared are the
slices between the painted ones, by mean foreground IoU:

- shape: the outlines interpolated, blind to the image;
- walker: scikit-image's random walker from the painted slices (see `rivals.py`);
- proposed: `napari_volseg.review.between`.

    python benchmarks/between.py [--data FOLDER] [--volumes NAME ...] [--gaps 4 8]
        [--methods shape walker proposed] [-o out/between.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from rivals import walker
from volumes import REAL, Known, agreement, known_volume

from napari_volseg.data.annotation import UNLABELED, Annotation, Case
from napari_volseg.inference.device import describe_device, pick_device
from napari_volseg.review.between import interpolate_outlines, propose_between


def painted_every(known: Known, step: int) -> tuple[Case, Annotation]:
    """Paint every so many xy slices, and cut the volume off behind the last one."""
    volume, truth = known
    stop = (volume.shape[0] - 1) // step * step + 1
    whole = truth.labels[:stop]
    labels = np.full_like(whole, UNLABELED)
    labels[::step] = whole[::step]
    complete = frozenset((0, z) for z in range(0, stop, step))
    cut = replace(volume, image=np.asarray(volume.image[:, :stop]), affine=None)
    return (
        Case(cut, Annotation(labels, truth.classes, complete)),
        Annotation(whole, truth.classes),
    )


def shape(case: Case) -> np.ndarray:
    """Interpolate the outlines alone."""
    found = case.annotation.labels.copy()
    for first, last in pairwise(painted(case)):
        slab = slice(first, last + 1)
        classes, distances = interpolate_outlines(found[slab], case.volume.spacing)
        found[slab] = classes[distances.argmax(0)]
    return found


def proposed(case: Case) -> np.ndarray:
    """Propose as the window does."""
    found = case.annotation.labels.copy()
    for proposal in propose_between(case.volume, case.annotation.labels, 0, painted(case)):
        if proposal.region is not None:
            found[proposal.region] = proposal.labels
    return found


def painted(case: Case) -> list[int]:
    """List the painted slices."""
    return sorted(index for _, index in case.annotation.complete)


METHODS = {"shape": shape, "walker": walker, "proposed": proposed}


def main() -> None:
    """Run what is asked for; results are kept after each volume."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the real volumes; else phantom only")
    parser.add_argument("--volumes", nargs="*", help="names, see volumes.py")
    parser.add_argument("--gaps", type=int, nargs="*", default=[4, 8], help="slices to fill")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("-o", type=Path, default=Path("out/between.json"))
    arguments = parser.parse_args()
    machine = f"{platform.machine()}, {describe_device(pick_device('cpu'))}"
    arguments.o.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    print(f"{machine}\n\n| volume | gap | {' | '.join(arguments.methods)} | seconds |")
    print("| --- " * (len(arguments.methods) + 3) + "|")
    for name in arguments.volumes or ["phantom", *(REAL if arguments.data else ())]:
        known = known_volume(arguments.data, name)
        for gap in arguments.gaps:
            case, truth = painted_every(known, gap + 1)
            row = {"volume": name, "gap": gap, "iou": {}, "seconds": {}}
            for method in arguments.methods:
                began = time.process_time()
                found = METHODS[method](case)
                row["seconds"][method] = time.process_time() - began
                row["iou"][method] = agreement(found, case, truth).iou
            rows.append(row)
            arguments.o.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
            cells = [f"{row['iou'][m]:.3f}" for m in arguments.methods]
            cells.append(", ".join(f"{row['seconds'][m]:.1f}" for m in arguments.methods))
            print(f"| {name} | {gap} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
