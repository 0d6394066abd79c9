"""Pictures of a segmentation: image, truth, annotation and prediction side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from napari_volseg.data.annotation import BACKGROUND
from napari_volseg.data.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_volseg.data.annotation import Annotation, LabelClass
    from napari_volseg.data.volume import Volume

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

COLUMN = 360
"""Width of a column, in pixels."""

GAP = 12
LINE = 30
OPACITY = 0.55
PAPER, INK = "#ffffff", "#202020"
# Channels one to four: magenta, green, cyan, yellow; they stay apart for the color-blind too.
CHANNEL_COLORS = ("#ff40ff", "#40ff40", "#40c0ff", "#ffe040")


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
    with replacing(path) as temporary:
        sheet.save(temporary)


def draw_slice(
    volume: Volume, labels: Iterable[Annotation], axis: int, index: int
) -> list[Image.Image]:
    """Draw a slice in its physical proportions: the image alone, then under each of the labels."""
    across = [s for i, s in enumerate(volume.spacing) if i != axis]
    shape = [n for i, n in enumerate(volume.shape) if i != axis]
    size = (COLUMN, round(COLUMN * shape[0] * across[0] / (shape[1] * across[1])))
    image = np.asarray(np.take(volume.image, index, axis + 1), dtype=np.float32)
    plain = _composite(image)
    gray = np.repeat(plain.mean(-1, keepdims=True), 3, axis=-1)
    pictures = [_to_image(plain, size, Image.Resampling.BICUBIC)]
    for annotation in labels:
        overlay = _overlay(gray, np.take(annotation.labels, index, axis), annotation.classes)
        pictures.append(_to_image(overlay, size, Image.Resampling.NEAREST))
    return pictures


def _composite(channels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Add up the channels (C, H, W) in their colors, each from its 1st to 99.8th percentile."""
    colors = CHANNEL_COLORS if len(channels) > 1 else (PAPER,)
    total = np.zeros((*channels.shape[1:], 3), dtype=np.float32)
    for channel, color in zip(channels, colors, strict=False):
        low, high = np.percentile(channel, (1, 99.8))
        bright = np.clip((channel - low) / max(high - low, 1e-6), 0, 1)
        total += bright[..., np.newaxis] * np.array(ImageColor.getrgb(color)) / 255
    return total.clip(0, 1)


def _overlay(
    image: NDArray[np.float32], labels: NDArray[np.integer], classes: Sequence[LabelClass]
) -> NDArray[np.float32]:
    """Blend the colors of the classes, except the background's, over an image (H, W, 3)."""
    blended = image.copy()
    for label_class in classes:
        if label_class.id != BACKGROUND:
            color = np.array(ImageColor.getrgb(label_class.color), dtype=np.float32) / 255
            mask = labels == label_class.id
            blended[mask] = (1 - OPACITY) * image[mask] + OPACITY * color
    return blended


def _to_image(
    pixels: NDArray[np.float32], size: tuple[int, int], how: Image.Resampling
) -> Image.Image:
    return Image.fromarray((255 * pixels).astype(np.uint8)).resize(size, how)


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
