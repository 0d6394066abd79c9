"""The work of ``napari-volseg demo --headless``: the main job on a sample, from end to end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_volseg.cli.evaluate import Comparison, compare
from napari_volseg.cli.predict import Job, run_job
from napari_volseg.cli.terminal import say
from napari_volseg.cli.train import Trained, run_training
from napari_volseg.data.annotation import UNLABELED, Case
from napari_volseg.data.files import read_annotation, write_labels, write_volume
from napari_volseg.data.phantom import kidney_phantom
from napari_volseg.data.samples import annotate_slices
from napari_volseg.review.picture import save_picture
from napari_volseg.sparse.config import TrainingConfig

if TYPE_CHECKING:
    from pathlib import Path

    from napari_volseg.data.annotation import Annotation

SHAPE = (32, 96, 96)
"""Of the sample: small enough for two CPU cores to learn it in a minute."""

SLICES = (3, 3, 2)
"""Annotated slices across z, y, x."""


@dataclass(frozen=True)
class Demo:
    """What the demo came to."""

    trained: Trained
    comparison: Comparison
    picture: Path

    def to_json(self) -> dict[str, Any]:
        """Return plain values that json can write."""
        return {
            "picture": str(self.picture),
            "training": self.trained.to_json(),
            "evaluation": self.comparison.to_json(),
        }

    def __str__(self) -> str:
        iou = self.comparison.evaluation.foreground.iou
        return (
            f"{self.trained}\n\nagainst the truth, where nothing was annotated:\n"
            f"{self.comparison}\n\nmean foreground IoU {iou:.3f}\npicture: {self.picture}"
        )


def run_demo(folder: Path, minutes: float) -> Demo:
    """Make a sample, annotate slices of it, train, predict, compare; leave all files.

    Parameters
    ----------
    folder : Path
        Made if it is missing.
    minutes : float
        Minutes to train.
    """
    folder.mkdir(exist_ok=True)
    image, painted, full, found = (
        folder / f"{name}.ome.tif" for name in ("image", "annotation", "truth", "prediction")
    )
    volume, truth = kidney_phantom(SHAPE)
    annotation = annotate_slices(truth, SLICES)
    write_volume(image, volume)
    write_labels(painted, annotation.labels, volume, annotation.classes)
    write_labels(full, truth.labels, volume, truth.classes)
    counts = ", ".join(f"{n} {axis}" for n, axis in zip(SLICES, "zyx", strict=True))
    say(f"sample of {volume.shape} voxels, annotated on slices: {counts}")
    config = TrainingConfig(minutes=minutes)
    trained = run_training([Case(volume, annotation)], config, None, folder / "model.volseg")
    if trained.interrupted:
        raise KeyboardInterrupt
    run_job(Job(image, found, None, None), trained.checkpoint, config.device)
    comparison = compare(found, full, None, painted, UNLABELED)
    picture = folder / "demo.png"
    columns = {
        "truth": truth,
        f"annotation ({sum(SLICES)} slices)": annotation,
        "prediction": read_annotation(found),
    }
    views = [(axis, between_annotated(annotation, axis)) for axis in range(3)]
    save_picture(picture, volume, columns, views)
    return Demo(trained, comparison, picture)


def between_annotated(annotation: Annotation, axis: int) -> int:
    """Return the slice midway between the two annotated ones nearest the middle."""
    annotated = sorted(index for a, index in annotation.complete if a == axis)
    middle = len(annotated) // 2
    return (annotated[middle - 1] + annotated[middle]) // 2
