"""What runs in threads for the window: generators and functions that touch no layer.

torch and the file formats are imported here, in the thread: the window opens fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from napari_volseg.data.annotation import UNLABELED, Annotation, Case, LabelClass
from napari_volseg.data.labels import ALL_LABELED, has_zero, read_labels
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.inference.large import is_large
from napari_volseg.widgets.painted import find_painted

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_volseg.data.corrections import Corrections
    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.volume import Volume
    from napari_volseg.models.checkpoint import Checkpoint
    from napari_volseg.review.between import Proposal
    from napari_volseg.review.classify import ClassifiedObject
    from napari_volseg.review.compare import MaskComparison
    from napari_volseg.review.objects import Objects
    from napari_volseg.review.queue import MeasuredObject
    from napari_volseg.review.suggest import Suggestion, UncertaintyMap
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.object_config import ObjectConfig
    from napari_volseg.training.events import Message, Progress

    # Labels (Z, Y, X), the classes of those that have a name, and the name of the layer.
    GivenMask = tuple[Any, Sequence[LabelClass], str]


def train_on(
    volume: Volume,
    labels: NDArray[Any],
    classes: Sequence[LabelClass],
    config: TrainingConfig,
    resume: Checkpoint | None,
    proposals: NDArray[Any] | None,
) -> Generator[Progress, Message | None, None]:
    """Train on one annotated volume; classes without paint are left out.

    Raises
    ------
    InputError
        As ``training.loop.train``.
    """
    from napari_volseg.training.loop import train

    painted = find_painted(labels)
    known = tuple(c for c in classes if c.id in painted.counts)
    case = Case(volume, Annotation(labels, known, painted.complete), proposals)
    yield from train(case, config, resume=resume)


@dataclass(frozen=True, eq=False)
class SuggestedSlice:
    """A slice to paint next, as the window shows it.

    Attributes
    ----------
    suggestion : Suggestion
    doubt : float
        How unsure the model is there, 1 is as everywhere.
    picture : uint8 (height, width, 3)
        The image with the prediction over it.
    total : int
        Slices suggested with it.
    """

    suggestion: Suggestion
    doubt: float
    picture: NDArray[np.uint8] = field(repr=False)
    total: int


def suggest_on(
    uncertainty: UncertaintyMap,
    volume: Volume,
    labels: NDArray[Any],
    prediction: NDArray[Any],
    classes: Sequence[LabelClass],
    box: tuple[int, int],
) -> Iterator[SuggestedSlice]:
    """Find the slices to paint next, best first, and draw them; nothing is predicted anew.

    Parameters
    ----------
    uncertainty : UncertaintyMap
        Of the prediction.
    labels : uint8 or uint16 (Z, Y, X)
        What is painted. May change meanwhile: a stroke more or less makes no difference.
    prediction : uint8 or uint16 (Z, Y, X)
    classes : sequence of LabelClass
        Of the prediction.
    box : (width, height)
        What a picture fits into, in pixels.
    """
    from napari_volseg.review.slice_picture import thumbnail
    from napari_volseg.review.suggest import doubt_over_average, rank_slices

    found = rank_slices(uncertainty, Annotation(labels))
    for s in found:
        doubt = doubt_over_average(uncertainty, s.axis, s.index)
        picture = thumbnail(volume, prediction, classes, s.axis, s.index, box)
        yield SuggestedSlice(s, doubt, picture, len(found))


def propose_on(
    volume: Volume,
    labels: NDArray[Any],
    axis: int,
    near: int,
    corrections: Corrections | None = None,
) -> Iterator[Proposal]:
    """Propose labels between the painted slices of an axis, those around a slice first.

    Raises
    ------
    InputError
        As ``review.between.propose_between``.
    """
    from napari_volseg.review.between import propose_between

    slices = [s.index for s in find_painted(labels, corrections).slices if s.axis == axis]
    yield from propose_between(volume, labels, axis, slices, near=near)


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


def save_review_table(
    path: Path,
    objects: Objects,
    measured: Sequence[MeasuredObject],
    states: Mapping[int, str],
    classes: Sequence[LabelClass],
    volume: Volume,
) -> Path:
    """Write a CSV of a review, with a row for each object, and return its path."""
    from napari_volseg.review.object_table import write_table
    from napari_volseg.review.queue import review_table

    write_table(path, review_table(objects, measured, states, classes, volume.spacing, volume.unit))
    return path


@dataclass(frozen=True, eq=False)
class Compared:
    """Two masks over a volume, compared.

    Attributes
    ----------
    comparison : MaskComparison
    volume : Volume
    legend : tuple of LabelClass
        What the values of an agreement map mean.
    most_different : tuple of int
        For each axis, the slice in which most voxels differ.
    """

    comparison: MaskComparison
    volume: Volume
    legend: tuple[LabelClass, ...]
    most_different: tuple[int, ...]


def compare_masks(
    a: GivenMask, b: GivenMask, volume: Volume, from_zero: bool
) -> Generator[float, None, Compared]:
    """Compare two masks of a volume; yield how much is done, 0 to 1.

    Parameters
    ----------
    from_zero : bool
        Whether 0 is the background in a mask that holds it; else it is unlabeled.

    Raises
    ------
    InputError
        As ``review.compare.compare``.
    """
    from napari_volseg.review.compare import AGREEMENT_CLASSES, comparing, most_different_slices

    masks = [_as_annotation(given, from_zero) for given in (a, b)]
    comparison = yield from comparing(
        *masks, names=(a[2], b[2]), spacing=volume.spacing, unit=volume.unit
    )
    most_different = most_different_slices(comparison.agreement)
    return Compared(comparison, volume, AGREEMENT_CLASSES, most_different)


def _as_annotation(given: GivenMask, from_zero: bool) -> Annotation:
    values, classes, name = given
    moves_up = from_zero and has_zero(values)
    if moves_up or not isinstance(values, SparseLabels):
        unlabeled = ALL_LABELED if from_zero else UNLABELED
        in_blocks = is_large(values.shape)
        values = read_labels(values, name, unlabeled, moves_up, in_blocks=in_blocks)
    annotation = Annotation(values)
    known = {} if moves_up else {c.id: c for c in classes}
    named = tuple(known.get(c.id, c) for c in annotation.classes)
    return replace(annotation, classes=named)


def agreement_of(comparison: MaskComparison, class_id: int | None) -> AnyLabels:
    """Return the agreement map of one class, or of all."""
    from napari_volseg.review.compare import map_agreement

    if class_id is None:
        return comparison.agreement
    return map_agreement(comparison.a, comparison.b, class_id)


def save_report(path: Path, compared: Compared) -> Path:
    """Write a comparison as a page, and return its path."""
    from napari_volseg.review.report import write_report

    write_report(path, compared.comparison, compared.volume)
    return path


def save_surfaces(
    path: Path,
    objects: Objects,
    numbers: Sequence[int],
    volume: Volume,
    classes: Sequence[LabelClass],
) -> Generator[float, None, Path]:
    """Write the surfaces of objects (by their ids) into one file, and return its path.

    Yields how much is done, 0 to 1.
    """
    from napari_volseg.review.surfaces import find_surfaces, surface_name, write_surfaces

    meshes = {}
    for found, mesh in find_surfaces(objects, numbers, volume, classes):
        meshes[surface_name(found)] = mesh
        yield len(meshes) / len(numbers)
    write_surfaces(path, meshes)
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
