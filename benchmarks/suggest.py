"""Measure how many slices `suggest` spares an annotator.

An oracle paints whole slices from the truth, and a model learns from them afresh at every
number of slices:

- suggested: from one slice across each axis on, always the slice that `suggest` puts first;
- random: the same, but any slice that is not complete;
- even: so many slices, evenly spaced, axes in turn ("3" is 1_1_1, "4" is 2_1_1, ...).

The model is the first answer of the default network, its pixel classifier, believed as far
as held-out voxels tell: what a user has seconds after the first strokes, and mostly goes
by. It trains for --steps, so the figures do not depend on how busy the machine is. Filter
responses are computed once for a volume, which is cut to --side voxels around its middle.

Reported is the mean foreground IoU over the voxels that were not painted, and the fewest
slices with which the others reach what evenly spaced ones do, both averaged over the seeds.

    python benchmarks/suggest.py [--data FOLDER] [--volumes NAME ...] [--steps 300]
        [--even 6 9 12] [--most 8] [--methods suggested random] [--seeds 0] [--side 128]
        [-o out/suggest.json] [--plot FILE.png]
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from volumes import Known, agreement, annotated, known_volume

from napari_volseg import TrainingConfig
from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.tiles import whole_region
from napari_volseg.models.belief import fit_belief, pool_opinions
from napari_volseg.models.unet3d_config import FILTER_SCALES
from napari_volseg.review.between import take_steps
from napari_volseg.review.suggest import add_region, empty_map, rank_slices
from napari_volseg.sparse.labeled_blocks import block_responses
from napari_volseg.sparse.pixel_stage import draw_voxels, pixel_stage
from napari_volseg.sparse.pixels import PixelClassifier
from napari_volseg.sparse.pool import build_pool
from napari_volseg.sparse.position import with_region_position
from napari_volseg.sparse.stage import IGNORE

FIRST = 3
"""Slices to begin with, one across each axis."""

REAL = ("nuclei_1135", "lightsheet_vessels", "hippocampus_001")

CPU = torch.device("cpu")
BLOCK = 64
SEEN_VOXELS = 40_000
"""To tell how common the classes are."""


def cut(known: Known, side: int) -> Known:
    """Cut a volume to so many voxels along each axis, around its middle."""
    volume, truth = known
    z, y, x = (slice(max(0, (n - side) // 2), (n + side) // 2) for n in volume.shape)
    image = np.asarray(volume.image[:, z, y, x])
    return replace(volume, image=image, affine=None), Annotation(
        truth.labels[z, y, x].copy(), truth.classes
    )


def new_classifier(case: Case, n_classes: int, seed: int) -> PixelClassifier:
    """Make the pixel classifier of the default network."""
    spacing = case.volume.spacing
    voxel = [side / min(spacing) for side in spacing]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PixelClassifier(
            case.volume.channels, n_classes, FILTER_SCALES, voxel, position=True, learned=True
        )


@torch.no_grad()
def all_responses(known: Known) -> torch.Tensor:
    """Filter responses of every voxel, float16 (Z, Y, X, F)."""
    volume, truth = known
    pool = build_pool([Case(volume, truth)], TrainingConfig(held_out=0), CPU)
    (own,) = pool.cases
    classifier = new_classifier(Case(volume, truth), pool.n_classes, 0)
    found = None
    corners = product(*(range(0, n, BLOCK) for n in volume.shape))
    for corner in corners:
        z, y, x = (slice(c, min(c + BLOCK, n)) for c, n in zip(corner, volume.shape, strict=True))
        (gray,) = block_responses(classifier, own, [(z, y, x)], CPU)
        block = with_region_position(gray, (z, y, x), volume.shape)
        if found is None:
            found = torch.empty((*volume.shape, len(block)), dtype=torch.float16)
        found[z, y, x] = block.movedim(0, -1).half()
    assert found is not None
    return found


def answer(case: Case, responses: torch.Tensor, config: TrainingConfig) -> np.ndarray:
    """Train the classifier on what is painted; return probabilities (K, Z, Y, X)."""
    pool = build_pool([case], config, CPU)
    (own,) = pool.cases
    voxels, classes = own.labeled()
    features = responses[tuple(voxels.T)].float()
    classifier = new_classifier(case, pool.n_classes, config.seed)
    stage = pixel_stage(config, pool, lambda module: module)
    # Of the responses that are there already, instead of preparing its own.
    stage = replace(stage, sample=partial(draw_voxels, (features, classes), None))
    for _ in take_steps(classifier, stage, config):
        pass
    classifier.eval()
    with torch.no_grad():
        planes = [classifier(plane.flatten(0, 1).float()).softmax(2) for plane in responses]
    opinions = torch.cat(planes, 1).movedim(2, 1).unflatten(2, case.volume.shape)
    held = torch.from_numpy(own.held_out)
    random = torch.Generator().manual_seed(config.seed)
    some = torch.randint(held.numel(), (SEEN_VOXELS,), generator=random)
    belief = fit_belief(
        opinions[:, :, held != IGNORE],
        held[held != IGNORE].long(),
        pool.counts,
        pool.strokes,
        opinions.flatten(2)[:, :, some],
    )
    return pool_opinions(opinions, belief).numpy()


def iou_of(probabilities: np.ndarray, case: Case, truth: Annotation) -> float:
    """Mean foreground IoU where nobody painted."""
    ids = np.array(truth.class_ids)
    return agreement(ids[probabilities.argmax(0)], case, truth).iou


def suggested_slice(probabilities: np.ndarray, case: Case) -> tuple[int, int]:
    """Return the slice that is suggested first."""
    volume = case.volume
    uncertainty = empty_map(volume.shape, volume.spacing, len(probabilities))
    add_region(uncertainty, whole_region(volume.shape), probabilities)
    (best,) = rank_slices(uncertainty, case.annotation, 1)
    return best.axis, best.index


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
    known: Known, responses: torch.Tensor, method: str, most: int, config: TrainingConfig
) -> dict[str, Any]:
    """Paint slice after slice; return the IoU of each number of slices, and what was painted."""
    volume, truth = known
    rng = np.random.default_rng(config.seed)
    annotation = annotated(truth, "1_1_1")
    iou: dict[str, float] = {}
    places = []
    for slices in range(FIRST, most + 1):
        case = Case(volume, annotation)
        found = answer(case, responses, config)
        iou[str(slices)] = iou_of(found, case, truth)
        by_rank = method == "suggested"
        place = suggested_slice(found, case) if by_rank else random_slice(annotation, rng)
        places.append(place)
        annotation = painted(annotation, truth, *place)
    return {"iou": iou, "painted": places[:-1]}


def evenly(known: Known, responses: torch.Tensor, slices: int, config: TrainingConfig) -> float:
    """Return the IoU of so many evenly spaced slices."""
    volume, truth = known
    counts = "_".join(str((slices + 2 - axis) // 3) for axis in range(3))
    case = Case(volume, annotated(truth, counts))
    return iou_of(answer(case, responses, config), case, truth)


def mean_curves(runs: list[dict[str, Any]]) -> dict[str, dict[str, dict[int, float]]]:
    """Average over the seeds: volume, method, number of slices, IoU."""
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    for run in runs:
        for method, curve in run["curves"].items():
            of = found.setdefault(run["volume"], {}).setdefault(method, {})
            for slices, iou in curve["iou"].items():
                of.setdefault(int(slices), []).append(iou)
    return {
        volume: {m: {n: float(np.mean(v)) for n, v in c.items()} for m, c in methods.items()}
        for volume, methods in found.items()
    }


def needed(curve: dict[int, float], iou: float) -> int | None:
    """Return the fewest slices that reach an IoU."""
    return next((slices for slices in sorted(curve) if curve[slices] >= iou), None)


def table(runs: list[dict[str, Any]]) -> str:
    """Show the slices needed to reach the IoU of evenly spaced ones, as Markdown."""
    curves = mean_curves(runs)
    methods = [m for m in next(iter(curves.values())) if m != "even"]
    heads = ["volume", "even slices", "IoU", *(h for m in methods for h in (m, "fewer by"))]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for volume, of in curves.items():
        for slices, iou in of["even"].items():
            cells = [volume, str(slices), f"{iou:.3f}"]
            for method in methods:
                reached = needed(of[method], iou)
                cells += (
                    ["not reached", "-"]
                    if reached is None
                    else [f"{reached}", f"{1 - reached / slices:.0%}"]
                )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(runs: list[dict[str, Any]], path: Path) -> None:
    """Draw IoU by number of slices."""
    mpl.use("Agg")
    curves = mean_curves(runs)
    figure, axes = plt.subplots(1, len(curves), figsize=(10, 3), squeeze=False)
    looks = {"suggested": ("#d55e00", "-"), "random": ("#8a8f98", ":"), "even": ("#4878a8", "--")}
    for axis, (volume, of) in zip(axes[0], curves.items(), strict=True):
        for method, curve in of.items():
            color, line = looks[method]
            axis.plot(
                list(curve), list(curve.values()), line, color=color, label=method, marker="."
            )
        axis.set_title(volume, fontsize=10)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("mean foreground IoU")
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.supxlabel("painted slices", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run what is asked for; results are kept after each volume."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the real volumes; else phantom only")
    parser.add_argument("--volumes", nargs="*", help="names, see volumes.py")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--even", type=int, nargs="*", default=[6, 9, 12], help="evenly spaced")
    parser.add_argument("--most", type=int, default=8, help="slices that the others paint")
    parser.add_argument("--methods", nargs="*", default=["suggested", "random"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--side", type=int, default=128, help="most voxels along an axis")
    parser.add_argument("-o", type=Path, default=Path("out/suggest.json"))
    parser.add_argument("--plot", type=Path, help="where to draw the curves (PNG)")
    arguments = parser.parse_args()
    if min(arguments.even) < FIRST:
        parser.error(f"--even: all begin with {FIRST} slices")
    arguments.o.parent.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {
        "machine": platform.machine(),
        "steps": arguments.steps,
        "side": arguments.side,
        "runs": [],
    }
    for seed in arguments.seeds:
        for name in arguments.volumes or ["phantom", *(REAL if arguments.data else ())]:
            # The volume is the same for every seed: they are of the training.
            known = cut(known_volume(arguments.data, name), arguments.side)
            responses = all_responses(known)
            config = TrainingConfig(steps=arguments.steps, seed=seed, device="cpu")
            curves = {
                method: one_by_one(known, responses, method, arguments.most, config)
                for method in arguments.methods
            }
            even = {str(n): evenly(known, responses, n, config) for n in arguments.even}
            document["runs"].append(
                {"volume": name, "seed": seed, "curves": curves | {"even": {"iou": even}}}
            )
            arguments.o.write_text(json.dumps(document, indent=1))
            print(table(document["runs"]), flush=True)
    if arguments.plot:
        plot(document["runs"], arguments.plot)


if __name__ == "__main__":
    main()
