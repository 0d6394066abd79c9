"""The work of ``napari-volseg evaluate``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.cli.terminal import follow, naming, say
from napari_volseg.data.annotation import UNLABELED, count_labels
from napari_volseg.data.errors import InputError
from napari_volseg.data.files import read_annotation, read_volume
from napari_volseg.data.units import PIXEL
from napari_volseg.inference.large import is_large
from napari_volseg.review.metrics import HEADINGS, Evaluation, evaluating

if TYPE_CHECKING:
    from pathlib import Path

    from napari_volseg.data.annotation import Annotation, LabelClass

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Comparison:
    """An evaluation, with what is needed to show it."""

    evaluation: Evaluation
    unit: str
    classes: tuple[LabelClass, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values that json can write."""
        names = {str(c.id): c.name for c in self.classes}
        return {**self.evaluation.to_json(), "unit": self.unit, "names": names}

    def __str__(self) -> str:
        names = {c.id: f"{c.id} {c.name}" for c in self.classes}
        evaluation = self.evaluation
        rows = [(names.get(i, str(i)), a) for i, a in evaluation.classes.items()]
        rows.append(("mean foreground", evaluation.foreground))
        heads = [f"{heading.format(unit=self.unit):>5}" for heading in HEADINGS]
        width = max(len(name) for name, _ in rows)
        lines = ["  ".join([" " * width, *heads])]
        for name, agreement in rows:
            values = zip(asdict(agreement).values(), heads, strict=True)
            cells = (f"{value:>{len(head)}.3f}" for value, head in values)
            lines.append("  ".join([f"{name:<{width}}", *cells]))
        return "\n".join([*lines, f"{evaluation.voxels:,} voxels compared"])


def compare(
    prediction: Path,
    truth: Path,
    unlabeled: int | None,
    annotation: Path | None,
    annotation_unlabeled: int,
) -> Comparison:
    """Read the files and compare them, in the physical units of the truth.

    Parameters
    ----------
    unlabeled : int or None
        Label that means unlabeled in the truth; None is 0, unless that looks wrong.

    Raises
    ------
    InputError
        If a file cannot be read, they are not of the same volume, or it is not plain
        whether 0 is a class of the truth.
    """
    read = partial(read_annotation, in_blocks=is_large)
    found = read(prediction)
    true = read(truth, unlabeled=UNLABELED if unlabeled is None else unlabeled)
    if unlabeled is None:
        check_zero(found, true, prediction, truth)
    painted = None
    if annotation is not None:
        painted = read(annotation, unlabeled=annotation_unlabeled)
    spacing, unit = read_spacing(truth, prediction)
    with naming(prediction):
        work = evaluating(found, true, spacing=spacing, annotation=painted)
        evaluation = follow(work, prediction.name)
    return Comparison(evaluation, unit, found.classes)


def check_zero(found: Annotation, true: Annotation, prediction: Path, truth: Path) -> None:
    """Refuse, or point out, a 0 that may well be a background.

    Raises
    ------
    InputError
        If the truth holds 0, the prediction does not, and its labels are one higher.
    """
    in_found, in_true = count_labels(found.labels), count_labels(true.labels)
    highest = max(in_true, default=UNLABELED)
    if sum(in_found.values()) < found.labels.size:
        say(
            f"{prediction}: holds voxels of value 0, which is no class and counts as wrong; "
            "background is 1"
        )
    elif sum(in_true.values()) < true.labels.size and highest + 1 == max(in_found):
        raise InputError(
            f"{truth}: its labels are 0 to {highest}, the prediction's 1 to {highest + 1}; say "
            "--unlabeled none if 0 is its background, or --unlabeled 0 if 0 is unlabeled"
        )


def read_spacing(truth: Path, prediction: Path) -> tuple[Spacing, str]:
    """Return the voxel size and its unit, of the first file that states a unit."""
    stated = [known for path in (truth, prediction) if (known := _stated_spacing(path))]
    if not stated:
        return (1.0, 1.0, 1.0), PIXEL
    spacing, unit = stated[0]
    other, other_unit = stated[-1]
    if unit != other_unit or not np.allclose(spacing, other, rtol=1e-3):
        say(
            f"{prediction}: its voxels are of {other} {other_unit}, the truth's of "
            f"{spacing} {unit}, which is used"
        )
    return spacing, unit


def _stated_spacing(path: Path) -> tuple[Spacing, str] | None:
    """Return a file's voxel size and unit, or None if it states none."""
    try:
        volume = read_volume(path)
    except InputError:
        # Labels, which were read already, may be of a type that no image has, as int64.
        return None
    return (volume.spacing, volume.unit) if volume.unit != PIXEL else None
