"""How well a prediction agrees with the truth: overlaps and surface distances."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_volseg.data.annotation import BACKGROUND, UNLABELED, Annotation
from napari_volseg.data.errors import InputError

Integers = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]

HEADINGS = ("IoU", "Dice", "mean accuracy", "ASD ({unit})", "HD95 ({unit})")
"""What to call the figures of an ``Agreement``, in its order."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement on one class, or the mean over classes; nan where undefined.

    Attributes
    ----------
    iou : float
        Intersection over union (Jaccard), 0 to 1.
    dice : float
        Twice the intersection over the sum of the sizes, 0 to 1.
    mean_accuracy : float
        Mean of the sensitivity and the specificity of the class against all others
        (Angermann 2022), 0 to 1. Undefined if the truth holds only this class, or
        nothing of it.
    asd : float
        Average symmetric surface distance, in the unit of the spacing: the mean over
        all counted surface voxels, of prediction and truth together, of the distance
        to the nearest surface voxel of the other. Undefined if either has no surface.
    hd95 : float
        95th percentile of the same distances (linear interpolation), in the unit of
        the spacing; the robust Hausdorff distance.
    """

    iou: float
    dice: float
    mean_accuracy: float
    asd: float
    hd95: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well a prediction agrees with the truth.

    Attributes
    ----------
    classes : dict of class id to Agreement
        Every class that the truth or the prediction holds where they are compared.
    foreground : Agreement
        Mean over the classes except the background (id 1); each figure over those
        classes for which it is defined, nan if there are none.
    voxels : int
        How many voxels were compared.
    spacing : (z, y, x)
        Size of a voxel that the distances were measured with.
    """

    classes: dict[int, Agreement]
    foreground: Agreement
    voxels: int
    spacing: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        """Return plain values that json can write; what is undefined is None."""
        return {
            "classes": {str(i): _json_values(a) for i, a in self.classes.items()},
            "foreground": _json_values(self.foreground),
            "voxels": self.voxels,
            "spacing": list(self.spacing),
        }


def evaluate(
    prediction: Annotation | Integers,
    truth: Annotation | Integers,
    *,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    annotation: Annotation | Integers | None = None,
) -> Evaluation:
    """Compare a dense prediction with the truth, class by class.

    A voxel counts if the truth is labeled there and, where an annotation is given, the
    annotation is not: then the figures say how good the prediction is where nobody
    painted.

    The surface of a class is its voxels that touch, by a face, a voxel of another class
    or the outside of the volume. Surfaces are found in the whole volume, with the
    prediction standing in where the truth is unlabeled, and distances lead to the whole
    surface of the other; only the distances *from* voxels that count are averaged. So
    neither the painted slices nor the gaps of a sparse truth make surfaces of their own.

    Parameters
    ----------
    prediction, truth : Annotation or integer array (Z, Y, X)
        Class ids, 1 the background. 0 is unlabeled in the truth and no class in the
        prediction: such a voxel is wrong wherever the truth is labeled.
    spacing : (z, y, x)
        Size of a voxel, in the unit in which distances are wanted.
    annotation : Annotation or integer array (Z, Y, X), optional
        What was painted: 0 where nothing was.

    Raises
    ------
    InputError
        If the shapes differ, or no voxel is left to compare.
    """
    found, true = _labels(prediction, "prediction"), _labels(truth, "truth")
    _check_shape(found, true, "the prediction")
    counted = true != UNLABELED
    if annotation is not None:
        painted = _labels(annotation, "annotation")
        _check_shape(painted, true, "the annotation")
        counted &= painted == UNLABELED
    if not counted.any():
        raise InputError(
            "no voxel is left to compare: each is unlabeled in the truth"
            + (" or painted in the annotation" if annotation is not None else "")
        )
    filled = np.where(true == UNLABELED, found, true)
    present = set(np.unique(found[counted]).tolist()) | set(np.unique(true[counted]).tolist())
    classes = {
        i: Agreement(
            **_overlap(found[counted] == i, true[counted] == i),
            **_surface_distances(found == i, filled == i, counted, spacing),
        )
        for i in sorted(present - {UNLABELED})
    }
    foreground = [agreement for i, agreement in classes.items() if i != BACKGROUND]
    return Evaluation(
        classes=classes,
        foreground=_mean(foreground),
        voxels=int(counted.sum()),
        spacing=spacing,
    )


def _labels(given: Annotation | Integers, name: str) -> Integers:
    labels = given.labels if isinstance(given, Annotation) else np.asarray(given)
    if labels.ndim != 3 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"the {name} is {labels.dtype} of shape {labels.shape}; give integer labels (z, y, x)"
        )
    return labels


def _check_shape(labels: Integers, truth: Integers, name: str) -> None:
    if labels.shape != truth.shape:
        raise InputError(
            f"{name} has shape {labels.shape}, the truth {truth.shape}; "
            "give files of the same volume"
        )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _overlap(found: Mask, true: Mask) -> dict[str, float]:
    """Overlap of two masks (N,)."""
    both = int((found & true).sum())
    n_found, n_true = int(found.sum()), int(true.sum())
    neither = found.size - (n_found + n_true - both)
    sensitivity = _ratio(both, n_true)
    specificity = _ratio(neither, found.size - n_true)
    return {
        "iou": _ratio(both, n_found + n_true - both),
        "dice": _ratio(2 * both, n_found + n_true),
        "mean_accuracy": (sensitivity + specificity) / 2,
    }


def _surface_distances(
    found: Mask,
    true: Mask,
    counted: Mask,
    spacing: tuple[float, float, float],
) -> dict[str, float]:
    """Average and 95th percentile of the distances between the surfaces of two masks."""
    box = _bounding_box(found | true)
    found_surface, true_surface = _surface(found[box]), _surface(true[box])
    if not (found_surface.any() and true_surface.any()):
        return {"asd": math.nan, "hd95": math.nan}
    to_true = ndimage.distance_transform_edt(~true_surface, sampling=spacing)
    to_found = ndimage.distance_transform_edt(~found_surface, sampling=spacing)
    distances = np.concatenate(
        [to_true[found_surface & counted[box]], to_found[true_surface & counted[box]]]
    )
    if not distances.size:
        return {"asd": math.nan, "hd95": math.nan}
    return {"asd": float(distances.mean()), "hd95": float(np.percentile(distances, 95))}


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """Smallest box around a mask that is not empty."""
    return ndimage.find_objects(mask.view(np.uint8))[0]


def _surface(mask: Mask) -> Mask:
    """Voxels of a mask that touch its outside by a face; beyond the array is outside."""
    return mask & ~ndimage.binary_erosion(mask)


def _mean(agreements: list[Agreement]) -> Agreement:
    """Mean of each figure over the classes for which it is defined."""
    names = [field.name for field in fields(Agreement)]
    rows = [asdict(agreement) for agreement in agreements]
    return Agreement(**{name: _defined_mean([row[name] for row in rows]) for name in names})


def _defined_mean(values: list[float]) -> float:
    defined = [v for v in values if not math.isnan(v)]
    return sum(defined) / len(defined) if defined else math.nan


def _json_values(agreement: Agreement) -> dict[str, float | None]:
    return {name: None if math.isnan(v) else v for name, v in asdict(agreement).items()}
