"""How well the memory of a training, and of a prediction, is foreseen.

    python benchmarks/memory_plan.py [--models unet3d,unet2d] [--shapes 64x128x128,96x256x256]
        [--json FILE]

For each architecture with the settings that `auto` chooses, and each size of a volume (noise,
2 x 1 x 1 voxels, four classes on slices (2, 2, 1)): what the dock and the command line foresee,
and the resident memory of a fresh process that trains a few steps of each stage, looks at the
held-out voxels and ends, at most and over what it held before. Beside it, for the prediction of
the volume: the largest tile as foreseen, and the same of a fresh process that only predicts (with
about 90 MB that torch loads for it, which a tile's estimate leaves out). "Seconds" is what the
estimate took in a process that had not made one, so with what torch loads for it the first time.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch
from alone import memory_alone, print_memory

from napari_volseg import TrainingConfig, load_model, train
from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.volume import Volume
from napari_volseg.inference.memory import tile_memory
from napari_volseg.inference.predict import prepare
from napari_volseg.models.checkpoint import save_model
from napari_volseg.models.registry import architectures, get_architecture
from napari_volseg.training.plan_memory import forecast

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = ("64x128x128", "96x256x256")
STEPS = {"unet3d": 4, "two_stage": 8}
"""Of the whole training: two of each stage, and each stage ends with a look."""

OTHERS = 2
CLASSES = 4


def noise(shape: tuple[int, int, int]) -> Case:
    """Return noise with noise for labels: memory depends on neither."""
    random = np.random.default_rng(0)
    labels = np.zeros(shape, np.uint8)
    for axis, count in enumerate((2, 2, 1)):
        for n in range(count):
            index = round((n + 1) * shape[axis] / (count + 1))
            labels.swapaxes(0, axis)[index] = 1
    painted = labels > 0
    labels[painted] = random.integers(1, CLASSES + 1, int(painted.sum()))
    image = random.integers(0, 255, (1, *shape), dtype=np.uint8)
    return Case(Volume(image, (2.0, 1.0, 1.0)), Annotation(labels))


def config_of(name: str, case: Case) -> TrainingConfig:
    """Return the settings of a training that is as one by time, but for its few steps."""
    by_time = TrainingConfig(model=name, device="cpu")
    chosen = get_architecture(name).configure(by_time, [case], torch.device("cpu"))
    return replace(by_time, steps=STEPS.get(name, OTHERS), options=asdict(chosen))


def training_alone(name: str, shape: tuple[int, int, int], model: Path) -> Callable[[], None]:
    """Return a training, ready to begin; it leaves its model."""
    case = noise(shape)

    def work() -> None:
        last = None
        for event in train(case, config_of(name, case)):
            last = event.checkpoint or last
        assert last is not None
        save_model(last, model)

    return work


def prediction_alone(shape: tuple[int, int, int], model: Path) -> Callable[[], None]:
    """Return a prediction of the largest tile, ready to begin."""
    volume, checkpoint = noise(shape).volume, load_model(model)

    def work() -> None:
        predictor = prepare(checkpoint, volume, "cpu")
        for _ in predictor.predict([predictor.tiles.largest]):
            pass

    return work


def foresee_tile(shape: tuple[int, int, int], model: Path) -> dict[str, float]:
    """Foresee the prediction of the largest tile."""
    predictor = prepare(load_model(model), noise(shape).volume, "cpu")
    own = predictor.architecture, predictor.config, predictor.tiles.largest
    found = tile_memory(*own, (1, *shape), CLASSES, predictor.device)
    return {"needed_mb": found / 1e6}


def foresee(name: str, shape: tuple[int, int, int]) -> dict[str, float]:
    """Foresee a training."""
    case = noise(shape)
    config = config_of(name, case)
    began = time.perf_counter()
    plan = forecast(case.volume, CLASSES, config)
    return {"needed_mb": plan.needed / 1e6, "seconds": time.perf_counter() - began}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(architectures()))
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--alone", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        what, name, size, model = arguments.alone
        z, y, x = (int(n) for n in size.split("x"))
        torch.set_num_threads(1)
        if what == "train":
            print_memory(training_alone(name, (z, y, x), Path(model)))
        elif what == "predict":
            print_memory(prediction_alone((z, y, x), Path(model)))
        elif what == "tile":
            print(json.dumps(foresee_tile((z, y, x), Path(model))))
        else:
            print(json.dumps(foresee(name, (z, y, x))))
        return
    rows = []
    print(f"{'MB':18}{'':14}{'training':>10}{'measured':>10}{'ratio':>7}", end="")
    print(f"{'tile':>8}{'measured':>10}{'ratio':>7}{'seconds':>9}")
    for size in arguments.shapes.split(","):
        for name in arguments.models.split(","):
            rows.append(compare(name, size))
            values = rows[-1]
            print(
                f"{name:18}{size:14}{values['training']:10.0f}{values['training_measured']:10.0f}"
                f"{values['training_ratio']:7.2f}{values['tile']:8.0f}"
                f"{values['tile_measured']:10.0f}{values['tile_ratio']:7.2f}"
                f"{values['seconds']:9.2f}",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def compare(name: str, size: str) -> dict[str, float | str]:
    """Foresee and measure, each in a fresh process."""
    with TemporaryDirectory() as folder:

        def alone(what: str) -> dict[str, float]:
            return memory_alone(__file__, "--alone", what, name, size, f"{folder}/model")

        foreseen, trained = alone("foresee"), alone("train")
        tile, predicted = alone("tile"), alone("predict")
    measured = trained["peak_mb"] - trained["idle_mb"]
    of_tile = predicted["peak_mb"] - predicted["idle_mb"]
    return {
        "model": name,
        "shape": size,
        "training": foreseen["needed_mb"],
        "training_measured": measured,
        "training_ratio": foreseen["needed_mb"] / measured,
        "tile": tile["needed_mb"],
        "tile_measured": of_tile,
        "tile_ratio": tile["needed_mb"] / of_tile,
        "seconds": foreseen["seconds"],
    }


if __name__ == "__main__":
    main()
