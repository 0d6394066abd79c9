"""Measure the classes of objects that a few examples teach.

- Generated 3D digits, ten classes, crops of 16^3 as in 3D MNIST: so many examples of each
  digit, accuracy over 300 other digits.
- With --image and --instances, nuclei: whether one is more elongated than the median of all
  (ratio of the longest to the shortest principal axis, from the instances): so many
  examples of each half, accuracy over all other nuclei. Nobody named classes of these
  nuclei, so this one is derived from their shape.

The settings are the defaults, but for the time, and for digits neither turns nor flips. A
line for each number of examples gives the accuracy's mean and range over the seeds, each
with its own examples.

    python benchmarks/objects.py [--image FILE --instances FILE] [--minutes 0.25] [-o FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_volseg import read_annotation, read_volume
from napari_volseg.cli.options import ALL_LABELED
from napari_volseg.data.annotation import LabelClass, default_classes
from napari_volseg.data.digits import digits
from napari_volseg.review.classify import (
    classify_objects,
    crop_probabilities,
    train_classifier,
    train_on_objects,
)
from napari_volseg.review.objects import find_objects
from napari_volseg.sparse.crops import Examples
from napari_volseg.sparse.object_config import ObjectConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_volseg.data.volume import Volume
    from napari_volseg.review.objects import Objects

OTHERS = 300


def crops_of_digits(per_class: int, seed: int) -> Examples:
    """Make so many digits of each kind."""
    images, values = digits(10 * per_class, seed=seed)
    return Examples(
        crops=torch.from_numpy(images)[:, None],
        target=torch.from_numpy(values),
        classes=tuple(LabelClass(k + 2, f"digit {k}", "#808080") for k in range(10)),
        gray_channels=1,
    )


def digits_accuracy(per_class: int, config: ObjectConfig) -> float:
    """Train on so many digits of each kind, and classify others."""
    config = replace(config, turns=False, flips=False)
    *_, last = train_classifier(crops_of_digits(per_class, seed=config.seed + 1), config)
    others = crops_of_digits(OTHERS // 10, seed=0)
    module, _ = last.checkpoint.module()
    found = crop_probabilities(module, others.crops).argmax(1)
    return float((found == others.target).float().mean())


def elongation(objects: Objects, number: int, volume: Volume) -> float:
    """Ratio of the longest to the shortest principal axis of an object in space."""
    voxels = np.argwhere(objects.labels == number) * volume.spacing
    variances = np.linalg.eigvalsh(np.cov(voxels.T))
    return float(np.sqrt(variances[-1] / variances[0]))


def nuclei_accuracy(
    volume: Volume, objects: Objects, truth: dict[int, int], per_class: int, config: ObjectConfig
) -> float:
    """Train on so many nuclei of each half, and classify the others."""
    rng = np.random.default_rng(config.seed)
    given = {}
    for half in sorted(set(truth.values())):
        members = [number for number, is_of in truth.items() if is_of == half]
        given |= {int(n): half for n in rng.choice(members, per_class, replace=False)}
    classes = default_classes(sorted(set(truth.values())))
    *_, last = train_on_objects(volume, objects, given, classes, config)
    rows = [row for some in classify_objects(last.checkpoint, volume, objects) for row in some]
    return float(np.mean([r.class_id == truth[r.object] for r in rows if r.object not in given]))


def measure(
    accuracy: Callable[[int, ObjectConfig], float],
    counts: list[int],
    config: ObjectConfig,
    seeds: int,
) -> dict[int, list[float]]:
    """Print and return the accuracies for each number of examples."""
    found = {}
    for per_class in counts:
        runs = [accuracy(per_class, replace(config, seed=seed)) for seed in range(seeds)]
        found[per_class] = runs
        print(f"{per_class:10} {np.mean(runs):9.3f} {min(runs):6.3f} - {max(runs):.3f}", flush=True)
    return found


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, help="volume with nuclei; else digits only")
    parser.add_argument("--instances", type=Path, help="its instances, 0 is the background")
    parser.add_argument("--examples", type=int, nargs="+", default=[1, 2, 5, 10])
    parser.add_argument("--minutes", type=float, default=0.25)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--preset", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-o", type=Path, default=Path("out/objects.json"))
    arguments = parser.parse_args()
    if (arguments.image is None) != (arguments.instances is None):
        parser.error("give --image and --instances together")
    config = ObjectConfig(
        minutes=arguments.minutes,
        steps=arguments.steps,
        preset=arguments.preset,
        device=arguments.device,
    )
    machine = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    table = {"machine": machine, "config": config.to_json(), "seeds": arguments.seeds}
    print(f"{machine}\ndigits, ten classes\n{'examples':>10} {'accuracy':>9} {'range':>14}")
    table["digits"] = measure(digits_accuracy, arguments.examples, config, arguments.seeds)
    if arguments.image is not None:
        volume = read_volume(arguments.image)
        objects = find_objects(
            read_annotation(arguments.instances, unlabeled=ALL_LABELED).labels, smallest=100
        )
        shapes = {o.id: elongation(objects, o.id, volume) for o in objects.found}
        median = float(np.median(list(shapes.values())))
        truth = {number: 3 if shape > median else 2 for number, shape in shapes.items()}
        print(f"nuclei, {len(truth)} in two halves of elongation, {median:.2f} between them")

        def accuracy(per_class: int, config: ObjectConfig) -> float:
            return nuclei_accuracy(volume, objects, truth, per_class, config)

        table["nuclei"] = measure(accuracy, arguments.examples, config, arguments.seeds)
    arguments.o.parent.mkdir(parents=True, exist_ok=True)
    arguments.o.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
