"""What runs in threads for the window: generators and functions that touch no layer.

torch and the file formats are imported here, in the thread, so that the window opens
fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_volseg.data.annotation import Annotation, Case, LabelClass
from napari_volseg.widgets.painted import find_painted

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_volseg.data.volume import Volume
    from napari_volseg.inference.predict import PredictedRegion
    from napari_volseg.models.checkpoint import Checkpoint
    from napari_volseg.review.between import Proposal
    from napari_volseg.review.classify import ClassifiedObject
    from napari_volseg.review.objects import Objects
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.object_config import ObjectConfig
    from napari_volseg.training.events import Command, PreviewRequest, Progress


def train_on(
    volume: Volume,
    labels: NDArray[Any],
    classes: Sequence[LabelClass],
    config: TrainingConfig,
    resume: Checkpoint | None,
) -> Generator[Progress, Command | PreviewRequest | None, None]:
    """Train on one annotated volume; classes without paint are left out.

    Raises
    ------
    InputError
        As ``training.loop.train``.
    """
    from napari_volseg.training.loop import train

    painted = find_painted(labels)
    known = tuple(c for c in classes if c.id in painted.counts)
    annotation = Annotation(labels, known, painted.complete)
    yield from train([Case(volume, annotation)], config, resume=resume)


def predict_on(
    checkpoint: Checkpoint, volume: Volume, near: tuple[int, int] | None
) -> Iterator[PredictedRegion]:
    """Predict a volume, the regions near the slice on view first.

    Raises
    ------
    InputError
        As ``inference.predict.predict``.
    """
    from napari_volseg.inference.predict import predict

    yield from predict(checkpoint, volume, near=near)


def propose_on(volume: Volume, labels: NDArray[Any], axis: int, near: int) -> Iterator[Proposal]:
    """Propose labels between the painted slices of an axis, those around a slice first.

    Raises
    ------
    InputError
        As ``review.between.propose_between``.
    """
    from napari_volseg.review.between import propose_between

    slices = [s.index for s in find_painted(labels).slices if s.axis == axis]
    yield from propose_between(volume, labels, axis, slices, near=near)


def find_objects_of(labels: NDArray[Any]) -> Objects:
    """Find the connected components of each class of a mask."""
    from napari_volseg.review.objects import find_objects

    return find_objects(labels)


@dataclass(frozen=True, eq=False)
class SortedObjects:
    """Every object of a mask with its type.

    Attributes
    ----------
    rows : tuple of ClassifiedObject
    labels : uint8 or uint16 (Z, Y, X)
        The type of each voxel's object; elsewhere background.
    """

    rows: tuple[ClassifiedObject, ...]
    labels: NDArray[Any] = field(repr=False)


def sort_objects(
    volume: Volume,
    objects: Objects,
    given: Mapping[int, int],
    types: Sequence[LabelClass],
    config: ObjectConfig,
) -> Iterator[Progress | SortedObjects]:
    """Learn from examples (object to type) what type an object is, then sort all of them.

    Raises
    ------
    InputError
        As ``review.classify.train_on_objects``.
    """
    from napari_volseg.review.classify import class_labels, classify_objects, train_on_objects

    checkpoint = None
    for progress in train_on_objects(volume, objects, given, types, config):
        yield progress
        checkpoint = progress.checkpoint
    assert checkpoint is not None, "the last event of a training brings a checkpoint"
    rows: list[ClassifiedObject] = []
    for some in classify_objects(checkpoint, volume, objects, given, device=config.device):
        rows.extend(some)
    yield SortedObjects(tuple(rows), class_labels(objects, rows))


def save_object_table(
    path: Path, rows: Sequence[ClassifiedObject], types: Sequence[LabelClass], unit: str
) -> Path:
    """Write a CSV with a row for each object, and return its path."""
    from napari_volseg.review.object_table import ClassifiedVolume, write_table

    write_table(path, ClassifiedVolume(tuple(rows), tuple(types), unit).table())
    return path


def save_labels(
    path: Path, labels: NDArray[Any], volume: Volume, classes: Sequence[LabelClass]
) -> Path:
    """Write labels with the geometry of their volume, and return the path."""
    from napari_volseg.data.files import write_labels

    write_labels(path, labels, volume, classes)
    return path


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> Path:
    """Write a model file, and return its path."""
    from napari_volseg.models.checkpoint import save_model

    save_model(checkpoint, path)
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a model file."""
    from napari_volseg.models.checkpoint import load_model

    return load_model(path)


def list_architectures() -> list[tuple[str, str, str]]:
    """Return (name, title, summary) of every architecture, the default first."""
    from napari_volseg.models.registry import architectures
    from napari_volseg.sparse.config import TrainingConfig

    found = sorted(architectures().values(), key=lambda a: a.name != TrainingConfig.model)
    return [(a.name, a.title, a.summary) for a in found]
