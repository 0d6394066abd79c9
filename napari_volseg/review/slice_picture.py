"""Pictures of single slices: the image, and labels over it in the colors of their classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageColor

from napari_volseg.data.annotation import BACKGROUND
from napari_volseg.data.tiles import read_block, slice_region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.volume import Volume

OPACITY = 0.55
# Channels one to four: magenta, green, cyan, yellow; they stay apart for the color-blind too.
CHANNEL_COLORS = ("#ff40ff", "#40ff40", "#40c0ff", "#ffe040")

NARROWEST = 8
"""Pixels that a thumbnail has at least in each direction, however thin the slice."""


def read_slice(volume: Volume, axis: int, index: int) -> NDArray[np.float32]:
    """Read a slice of all channels, (C, H, W); axis 0, 1, 2 is z, y, x."""
    block = read_block(volume, slice_region(volume.shape, axis, index))
    return np.asarray(block.squeeze(axis + 1), dtype=np.float32)


def composite(channels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Add up the channels (C, H, W) in their colors, each from its 1st to 99.8th percentile.

    Returns
    -------
    float32 (H, W, 3)
        From 0 to 1; gray where there is one channel.
    """
    colors = CHANNEL_COLORS if len(channels) > 1 else ("#ffffff",)
    total = np.zeros((*channels.shape[1:], 3), dtype=np.float32)
    for channel, color in zip(channels, colors, strict=False):
        low, high = np.percentile(channel, (1, 99.8))
        bright = np.clip((channel - low) / max(high - low, 1e-6), 0, 1)
        total += bright[..., np.newaxis] * np.array(ImageColor.getrgb(color)) / 255
    return total.clip(0, 1)


def gray(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take the colors out of a picture (H, W, 3), so that those of classes stand out."""
    return np.repeat(pixels.mean(-1, keepdims=True), 3, axis=-1)


def overlay(
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


def resize(
    pixels: NDArray[np.float32], size: tuple[int, int], how: Image.Resampling
) -> Image.Image:
    """Return a picture (H, W, 3), 0 to 1, as an image of that (width, height)."""
    return Image.fromarray((255 * pixels).astype(np.uint8)).resize(size, how)


def thumbnail(
    volume: Volume,
    labels: AnyLabels,
    classes: Sequence[LabelClass],
    axis: int,
    index: int,
    box: tuple[int, int],
) -> NDArray[np.uint8]:
    """Draw a slice of a volume, with labels over it, as large as fits into a box.

    Parameters
    ----------
    labels : unsigned integer (Z, Y, X), numpy or ``SparseLabels``
        Background and what is no class are left transparent.
    axis, index : int
        Axis 0, 1, 2 is z, y, x.
    box : (width, height)
        In pixels; the sides of the slice keep their physical proportion.

    Returns
    -------
    uint8 (height, width, 3)
    """
    height, width = np.delete(np.multiply(volume.shape, volume.spacing), axis)
    scale = min(box[0] / width, box[1] / height)
    size = (max(round(width * scale), NARROWEST), max(round(height * scale), NARROWEST))
    image = read_slice(volume, axis, index)
    drawn = labels[slice_region(volume.shape, axis, index)].squeeze(axis)
    # Two voxels to a pixel are enough to average.
    rows, columns = (max(n // (2 * p), 1) for n, p in zip(drawn.shape, size[::-1], strict=True))
    image, drawn = image[:, ::rows, ::columns], drawn[::rows, ::columns]
    pixels = overlay(gray(composite(image)), drawn, classes)
    return np.asarray(resize(pixels, size, Image.Resampling.BOX))
