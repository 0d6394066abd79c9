"""How well a prediction agrees with the truth: overlaps and surface distances."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data.annotation import BACKGROUND, UNLABELED, Annotation
from napari_volseg.data.errors import InputError
from napari_volseg.data.progress import result_of
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.data.tiles import TILE, tile_grid
from napari_volseg.review.surface_distances import collect_surfaces, distances

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.review.surface_distances import SurfacePart, Surfaces

    Integers = NDArray[np.integer[Any]]

LOOKING = 0.5
"""Part of the work that looking at the tiles is; the rest is to measure distances."""

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
    prediction: Annotation | AnyLabels,
    truth: Annotation | AnyLabels,
    *,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    annotation: Annotation | AnyLabels | None = None,
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
    prediction, truth : Annotation, or integer (Z, Y, X), numpy or ``SparseLabels``
        Class ids, 1 the background. 0 is unlabeled in the truth and no class in the
        prediction: such a voxel is wrong wherever the truth is labeled.
    spacing : (z, y, x)
        Size of a voxel, in the unit in which distances are wanted.
    annotation : Annotation, or integer (Z, Y, X), numpy or ``SparseLabels``, optional
        What was painted: 0 where nothing was.

    Raises
    ------
    InputError
        If the shapes differ, or no voxel is left to compare.
    """
    return result_of(evaluating(prediction, truth, spacing=spacing, annotation=annotation))


def evaluating(
    prediction: Annotation | AnyLabels,
    truth: Annotation | AnyLabels,
    *,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    annotation: Annotation | AnyLabels | None = None,
) -> Generator[float, None, Evaluation]:
    """Do what ``evaluate`` does, and yield how much is done, 0 to 1."""
    found, true = _labels(prediction, "prediction"), _labels(truth, "truth")
    _check_shape(found, true, "the prediction")
    painted = None if annotation is None else _labels(annotation, "annotation")
    if painted is not None:
        _check_shape(painted, true, "the annotation")
    shared: Counter[tuple[int, int]] = Counter()
    surfaces: tuple[Surfaces, Surfaces] = ({}, {})
    tiles = tile_grid(true.shape, (TILE,) * 3, (1, 1, 1))
    for done, tile in enumerate(tiles):
        yield LOOKING * done / len(tiles)
        of_found, of_true = found[tile.read], true[tile.read]
        counted = of_true[tile.trim] != UNLABELED
        if painted is not None:
            counted &= painted[tile.write] == UNLABELED
        shared.update(_shared(of_found[tile.trim][counted], of_true[tile.trim][counted]))
        collect_surfaces(surfaces[0], tile, of_found, counted)
        filled = np.where(of_true == UNLABELED, of_found, of_true)
        collect_surfaces(surfaces[1], tile, filled, counted)
    if not shared:
        raise InputError(
            "no voxel is left to compare: each is unlabeled in the truth"
            + (" or painted in the annotation" if annotation is not None else "")
        )
    in_found, in_true = (_of_one(shared, which) for which in (0, 1))
    present = sorted((in_found.keys() | in_true.keys()) - {UNLABELED})
    classes = {}
    for done, i in enumerate(present):
        yield LOOKING + (1 - LOOKING) * done / len(present)
        apart = _surface_distances(surfaces[0].get(i, ()), surfaces[1].get(i, ()), spacing)
        overlap = _overlap(shared[i, i], in_found[i], in_true[i], shared.total())
        classes[i] = Agreement(**overlap, **apart)
    foreground = [agreement for i, agreement in classes.items() if i != BACKGROUND]
    return Evaluation(
        classes=classes,
        foreground=_mean(foreground),
        voxels=shared.total(),
        spacing=spacing,
    )


def _labels(given: Annotation | AnyLabels, name: str) -> AnyLabels:
    labels = given.labels if isinstance(given, Annotation) else given
    if not isinstance(labels, SparseLabels):
        labels = np.asarray(labels)
    if labels.ndim != 3 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"the {name} is {labels.dtype} of shape {labels.shape}; give integer labels (z, y, x)"
        )
    return labels


def _check_shape(labels: AnyLabels, truth: AnyLabels, name: str) -> None:
    if labels.shape != truth.shape:
        raise InputError(
            f"{name} has shape {labels.shape}, the truth {truth.shape}; "
            "give files of the same volume"
        )


def _shared(found: Integers, true: Integers) -> Counter[tuple[int, int]]:
    """Count the voxels (N,) of each pair of classes, of the prediction and of the truth."""
    codes = found.astype(np.int64) << 32 | true
    pairs, voxels = np.unique(codes, return_counts=True)
    return Counter(
        {(int(p >> 32), int(p & 0xFFFFFFFF)): int(n) for p, n in zip(pairs, voxels, strict=True)}
    )


def _of_one(shared: Counter[tuple[int, int]], which: int) -> Counter[int]:
    """Count the voxels of each class of the prediction (0) or of the truth (1)."""
    counts: Counter[int] = Counter()
    for pair, voxels in shared.items():
        counts[pair[which]] += voxels
    return counts


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _overlap(both: int, found: int, true: int, all_voxels: int) -> dict[str, float]:
    """Overlap of a class in two masks, by the voxels of it in both, in each, and of all."""
    others = all_voxels - true
    sensitivity = _ratio(both, true)
    specificity = _ratio(others - (found - both), others)
    return {
        "iou": _ratio(both, found + true - both),
        "dice": _ratio(2 * both, found + true),
        "mean_accuracy": (sensitivity + specificity) / 2,
    }


def _surface_distances(
    found: Sequence[SurfacePart], true: Sequence[SurfacePart], spacing: tuple[float, float, float]
) -> dict[str, float]:
    """Average and 95th percentile of the distances between the surfaces of two masks."""
    apart = distances(found, true, spacing) if found and true else np.zeros(0, np.float32)
    if not apart.size:
        return {"asd": math.nan, "hd95": math.nan}
    return {"asd": float(apart.mean(dtype=np.float64)), "hd95": float(np.percentile(apart, 95))}


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
