"""Gray-value statistics: every volume is standardized before a network sees it.

Around a window, as radiologists have it, contrast is kept; far from it, it is compressed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data.errors import InputError
from napari_volseg.data.tiles import mirror_indices, read_block

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.tiles import Region
    from napari_volseg.data.volume import Volume

SAMPLED_PLANES = 32
SAMPLED_PIXELS = 512**2
"""Of a plane; more would tell the same, after seconds in which nothing is learned."""

WIDEST = 4096
LARGEST = 1e37
"""Gray values beyond cannot be told from infinite ones in float32."""

RUNS, RUN = 8, 512
"""Of an axis longer than ``WIDEST``, so many evenly spaced runs of so many voxels are read: a plane
of a petavoxel would be 10 GB."""


@dataclass(frozen=True)
class Window:
    """The gray values of one channel that matter, in whatever volume of a kind.

    Attributes
    ----------
    level, width : float
        Its middle, from the volume's median, and its width, in the volume's standard
        deviations.
    """

    level: float = 0.0
    width: float = 1.0


@dataclass(frozen=True)
class ChannelIntensity:
    """How the gray values of one channel are standardized.

    A value v becomes ``(asinh((v - center) / scale) - mean) / sd``. The inverse
    hyperbolic sine is straight around the center and logarithmic far from it, so a few
    very bright structures do not press all others together; no order is changed.
    Center and scale are those of a window.
    """

    center: float
    scale: float
    mean: float
    sd: float
    window: Window = Window()


Intensity = tuple[ChannelIntensity, ...]
"""One for each channel."""


def standardize(image: NDArray[np.generic], intensity: Intensity) -> NDArray[np.float32]:
    """Standardize an image (C, ...) by channel, float32 of the same shape."""
    result = np.empty(image.shape, dtype=np.float32)
    for channel, how in enumerate(intensity):
        values = result[channel]
        np.subtract(image[channel], how.center, out=values, casting="unsafe")
        values /= how.scale
        np.arcsinh(values, out=values)
        values -= how.mean
        values /= how.sd
    return result


def read_standardized(volume: Volume, region: Region, intensity: Intensity) -> NDArray[np.float32]:
    """Read a region of a volume, mirrored beyond it (``read_block``), and standardize it.

    Raises
    ------
    InputError
        If a value is not finite: of a large volume, not all is looked at beforehand.
    """
    block = read_block(volume, region)
    if block.dtype.kind == "f" and not (finite := np.isfinite(block)).all():
        channel, z = (int(at[0]) for at in np.nonzero(~finite.all(axis=(2, 3))))
        side = region[0]
        index = mirror_indices(side.start, side.stop, volume.shape[0])[z]
        raise _not_finite(volume, channel, int(index))
    return standardize(block, intensity)


def _not_finite(volume: Volume, channel: int, index: int) -> InputError:
    return InputError(
        f"{volume.name}: channel {channel} holds NaN or infinite values, in xy slice {index}; "
        "replace them (for example by 0) before training or predicting"
    )


def measure_intensity(volume: Volume, windows: Sequence[Window] = ()) -> Intensity:
    """Measure how the gray values of a volume are standardized; see ``intensity_of``.

    Raises
    ------
    InputError
        If a channel holds values that are not finite, or too large.
    """
    return intensity_of(sample_gray_values(volume), windows)


def sample_gray_values(volume: Volume) -> list[NDArray[Any]]:
    """Read what tells the statistics of a volume's gray values: some of each channel.

    Of a large volume, 32 evenly spaced planes are read, of very large planes evenly spaced
    parts, and of what is read, evenly spaced rows and columns count.

    Raises
    ------
    InputError
        If a channel holds values that are not finite, or too large.
    """
    planes = np.unique(np.linspace(0, volume.shape[0] - 1, SAMPLED_PLANES).round().astype(int))
    rows, columns = map(_runs, volume.shape[1:])

    def plane(channel: int, z: int) -> NDArray[Any]:
        image = volume.image[channel, z]
        read = np.block([[np.asarray(image[row, column]) for column in columns] for row in rows])
        step = next(n for n in count(1) if read.size <= n * n * SAMPLED_PIXELS)
        return read[::step, ::step]

    sampled = []
    for channel in range(volume.channels):
        values = np.stack([plane(channel, z) for z in planes])
        finite = np.isfinite(values).all(axis=(1, 2))
        if not finite.all():
            raise _not_finite(volume, channel, int(planes[finite.argmin()]))
        if (largest := float(np.abs(values).max())) > LARGEST:
            raise InputError(
                f"{volume.name}: channel {channel} holds values of {largest:.0e}; divide the image "
                "by that before training or predicting"
            )
        sampled.append(values)
    return sampled


def intensity_of(gray_values: Sequence[NDArray[Any]], windows: Sequence[Window] = ()) -> Intensity:
    """Find how gray values are standardized.

    Parameters
    ----------
    gray_values : sequence of array
        Some of each channel.
    windows : sequence of Window, optional
        One for each channel. Without them, center and scale are the median and the standard
        deviation: a smaller scale (the distance of the quartiles, in an image that is mostly
        empty) would bend the gray values of what matters.
    """
    found = []
    for values, window in zip(gray_values, windows or (Window(),) * len(gray_values), strict=True):
        bent = values.astype(np.float64)
        # A constant image carries nothing: dividing by 1 keeps it at zero.
        spread = float(bent.std()) or 1.0
        center, scale = float(np.median(values)) + window.level * spread, window.width * spread
        bent -= center
        bent /= scale
        np.arcsinh(bent, out=bent)
        found.append(
            ChannelIntensity(center, scale, float(bent.mean()), float(bent.std()) or 1.0, window)
        )
    return tuple(found)


def windows_of(intensity: Intensity) -> tuple[Window, ...]:
    """Return the window of each channel."""
    return tuple(channel.window for channel in intensity)


def _runs(size: int) -> list[slice]:
    """Return what is read along an axis of a plane."""
    if size <= WIDEST:
        return [slice(0, size)]
    starts = np.linspace(0, size - RUN, RUNS).astype(int)
    return [slice(start, start + RUN) for start in starts.tolist()]


def pooled_intensity(intensities: Sequence[Intensity]) -> Intensity:
    """Average the statistics of volumes with one window, for images of absolute gray values."""

    def pooled(channel: Sequence[ChannelIntensity]) -> ChannelIntensity:
        measured = [(how.center, how.scale, how.mean, how.sd) for how in channel]
        center, scale, mean, sd = np.mean(measured, axis=0).tolist()
        return ChannelIntensity(center, scale, mean, sd, channel[0].window)

    return tuple(pooled(channel) for channel in zip(*intensities, strict=True))
