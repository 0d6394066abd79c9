"""The work of ``napari-volseg compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_volseg.cli.evaluate import Comparison, read_spacing
from napari_volseg.cli.terminal import follow, naming
from napari_volseg.data.annotation import UNLABELED
from napari_volseg.data.errors import InputError
from napari_volseg.data.files import read_annotation, read_volume
from napari_volseg.data.units import PIXEL
from napari_volseg.inference.large import is_large
from napari_volseg.review.compare import MaskComparison, comparing, zero_may_be_background
from napari_volseg.review.report import OBJECT_HEADINGS, check_image, write_report

if TYPE_CHECKING:
    from pathlib import Path


def compare_files(
    a: Path, b: Path, image: Path | None, unlabeled: int | None, smallest: int, report: Path
) -> MaskComparison:
    """Read two masks, compare them, and write the report.

    Parameters
    ----------
    unlabeled : int or None
        Label that means unlabeled in both; None is 0, unless that looks wrong.

    Raises
    ------
    InputError
        If a file cannot be read, they are not of the same volume, or it is not plain whether
        0 is a class.
    """
    value = UNLABELED if unlabeled is None else unlabeled
    masks = [read_annotation(path, unlabeled=value, in_blocks=is_large) for path in (a, b)]
    if unlabeled is None and zero_may_be_background(*masks):
        raise InputError(
            f"{a}, {b}: hold 0; say --unlabeled none if it is the background, or --unlabeled 0 if "
            "such voxels are unlabeled"
        )
    volume = None
    if image is not None:
        volume = read_volume(image)
        with naming(image):
            check_image(volume, masks[1].labels.shape)
    spacing, unit = read_spacing(b, a)
    if unit == PIXEL and volume is not None:
        spacing, unit = volume.spacing, volume.unit
    work = comparing(*masks, names=(str(a), str(b)), spacing=spacing, unit=unit, smallest=smallest)
    comparison = follow(work, a.name)
    write_report(report, comparison, volume)
    return comparison


def table(comparison: MaskComparison) -> str:
    """Return a comparison for reading: the figures of each class, then its objects."""
    scores = Comparison(comparison.evaluation, comparison.unit, comparison.classes)
    names = {c.id: f"{c.id} {c.name}" for c in comparison.classes}
    width = max([len(name) for name in names.values()], default=0)
    lines = ["  ".join([f"{'objects':<{width}}", *OBJECT_HEADINGS])]
    for i, counts in comparison.objects.items():
        numbers = zip(vars(counts).values(), OBJECT_HEADINGS, strict=True)
        cells = (f"{number:>{len(heading)}}" for number, heading in numbers)
        lines.append("  ".join([f"{names[i]:<{width}}", *cells]))
    return "\n".join([str(scores), "", *lines])
