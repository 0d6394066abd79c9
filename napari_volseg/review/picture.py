"""Pictures of a segmentation: image, truth, annotation and prediction side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from napari_volseg.data.annotation import BACKGROUND
from napari_volseg.data.atomic import saving
from napari_volseg.data.tiles import slice_region
from napari_volseg.review.slice_picture import composite, gray, overlay, read_slice, resize

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from napari_volseg.data.annotation import Annotation, LabelClass
    from napari_volseg.data.volume import Volume

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

COLUMN = 360
"""Width of a column, in pixels."""

GAP = 12
LINE = 30
PAPER, INK = "#ffffff", "#202020"


def save_picture(
    path: Path,
    volume: Volume,
    columns: Mapping[str, Annotation],
    slices: Sequence[tuple[int, int]],
) -> None:
    """Draw the image, then the labels over it, one column for each and one row for each slice.

    Parameters
    ----------
    columns : mapping of title to Annotation
        Background and unlabeled voxels are left transparent.
    slices : sequence of (axis, index)

    Raises
    ------
    InputError
        If the picture cannot be written.
    """
    rows = [draw_slice(volume, columns.values(), axis, index) for axis, index in slices]
    width = (len(columns) + 1) * (COLUMN + GAP) + GAP
    height = 2 * LINE + sum(row[0].height + GAP for row in rows)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=16)
    for i, title in enumerate(("image", *columns)):
        draw.text((GAP + i * (COLUMN + GAP), LINE / 4), title, INK, font)
    top = LINE
    for row in rows:
        for i, picture in enumerate(row):
            sheet.paste(picture, (GAP + i * (COLUMN + GAP), top))
        top += row[0].height + GAP
    _draw_legend(draw, font, next(iter(columns.values())).classes, top)
    with saving(path) as temporary:
        sheet.save(temporary)


def draw_slice(
    volume: Volume, labels: Iterable[Annotation], axis: int, index: int
) -> list[Image.Image]:
    """Draw a slice in its physical proportions: the image alone, then under each of the labels."""
    across = [s for i, s in enumerate(volume.spacing) if i != axis]
    shape = [n for i, n in enumerate(volume.shape) if i != axis]
    size = (COLUMN, round(COLUMN * shape[0] * across[0] / (shape[1] * across[1])))
    plain = composite(read_slice(volume, axis, index))
    pictures = [resize(plain, size, Image.Resampling.BICUBIC)]
    for annotation in labels:
        drawn = annotation.labels[slice_region(volume.shape, axis, index)].squeeze(axis)
        pixels = overlay(gray(plain), drawn, annotation.classes)
        pictures.append(resize(pixels, size, Image.Resampling.NEAREST))
    return pictures


def _draw_legend(
    draw: ImageDraw.ImageDraw, font: Font, classes: Sequence[LabelClass], top: int
) -> None:
    left = float(GAP)
    for label_class in classes:
        if label_class.id != BACKGROUND:
            draw.rectangle((left, top, left + LINE / 2, top + LINE / 2), label_class.color)
            left += LINE
            draw.text((left, top - 2), label_class.name, INK, font)
            left += draw.textlength(label_class.name, font) + LINE
