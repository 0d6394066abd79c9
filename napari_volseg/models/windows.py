"""Windows that slide over a volume with overlap, blended by Gaussian weights.

The inference of nnU-Net (Isensee et al. 2021), which Marimont and Tarroni (2022, section 2)
use with an overlap of 0.3 and an average pooling of the probabilities at the end. They do
not give the width of the Gaussian; chosen is nnU-Net's, an eighth of the window.

The windows lie on one grid of the volume, whatever the tile: they begin at multiples of
the stride, and the last one of an axis ends where the volume ends. Tiles begin to read at
multiples of the stride too, and read so far that every window which touches what they
write lies inside; so a tiled prediction equals a whole one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from napari_volseg.data.tiles import Region, crop_around, mirror_indices
from napari_volseg.models.registry import Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_volseg.sparse.plan import Triple

SMOOTHING_REACH = 1
"""Voxels that the average pooling of width 3 looks at on each side."""


@dataclass(frozen=True)
class Windows:
    """Windows over a volume.

    Attributes
    ----------
    size : (z, y, x)
        Voxels of a window.
    overlap : float
        Part of a window that the next one covers again.
    smooth : bool
        Average the blended probabilities over 3x3x3 voxels.
    """

    size: Triple
    overlap: float
    smooth: bool = False

    @property
    def stride(self) -> Triple:
        """Voxels (z, y, x) between the starts of two windows."""
        z, y, x = (max(1, int(n * (1 - self.overlap))) for n in self.size)
        return z, y, x


def walk_windows(windows: Windows, tile: Triple, shape: Triple) -> Walk:
    """Tiles of about ``tile`` voxels (z, y, x); whole axes where the volume is no longer.

    Neighboring tiles compute the windows between them twice, so large tiles cost less.
    """
    core = [
        0 if size <= wanted else max(1, wanted // step) * step
        for size, wanted, step in zip(shape, tile, windows.stride, strict=True)
    ]
    # One voxel more than a window: the smoothing asks for windows that touch a core's
    # neighbors, and a window that only the block's end made is then never asked for.
    halo = [n + SMOOTHING_REACH for n in windows.size]
    return Walk(
        core=(core[0], core[1], core[2]),
        halo=(halo[0], halo[1], halo[2]),
        border="clip",
        align=windows.stride,
    )


def blend_windows(
    windows: Windows, predict: Callable[[Tensor], Tensor], block: Tensor, core: Region
) -> Tensor:
    """Blend the class probabilities of the windows that touch a core.

    Parameters
    ----------
    predict : callable (window (1, C, *size)) -> probabilities (K, *size)
    block : float (1, C, z, y, x)
        As ``walk_windows`` reads it.
    core : region
        Inside the block.

    Returns
    -------
    float32 (K, z, y, x)
        Of the core.
    """
    shape = block.shape[2:]
    reach = (SMOOTHING_REACH if windows.smooth else 0,) * 3
    seen, within = crop_around(core, reach, (1, 1, 1), shape)
    weight = gaussian_weights(windows.size, block.device)
    total = covered = None
    starts = starts_over(windows, seen, shape)
    # Where only memory is counted, two windows tell what all of them take.
    for start in starts[:2] if block.is_meta else starts:
        found = predict(cut(block, start, windows.size)).float()
        here, there = [], []
        for side, first, size in zip(seen, start, windows.size, strict=True):
            low, high = max(side.start, first), min(side.stop, first + size)
            here.append(slice(low - first, high - first))
            there.append(slice(low - side.start, high - side.start))
        if total is None or covered is None:
            total = found.new_zeros(len(found), *(s.stop - s.start for s in seen))
            covered = torch.zeros_like(total[0])
        part = weight[tuple(here)]
        total[(slice(None), *there)] += found[(slice(None), *here)] * part
        covered[tuple(there)] += part
    assert total is not None and covered is not None, "windows cover every voxel"
    total /= covered
    if windows.smooth:
        # Padded by hand: torch refuses to pool an axis of one voxel.
        padded, inside = (functional.pad(t, (1,) * 6) for t in (total, torch.ones_like(total[:1])))
        total = functional.avg_pool3d(padded, 3, 1) / functional.avg_pool3d(inside, 3, 1)
    return total[(slice(None), *within)]


def starts_over(windows: Windows, seen: Region, shape: Sequence[int]) -> list[Triple]:
    """Return the starts (z, y, x) of the windows of a block that touch a region of it."""
    axes = [
        [first for first in window_starts(n, size, step) if side.start - size < first < side.stop]
        for n, size, step, side in zip(shape, windows.size, windows.stride, seen, strict=True)
    ]
    return [(z, y, x) for z, y, x in product(*axes)]


def window_starts(length: int, size: int, stride: int) -> list[int]:
    """Return the starts of the windows over an axis.

    The last one ends where the axis ends. An axis shorter than a window lies in the
    middle of the only one, as it does in a training patch.
    """
    if length <= size:
        return [(length - size) // 2]
    return [*range(0, length - size, stride), length - size]


def cut(block: Tensor, start: Triple, size: Triple) -> Tensor:
    """Cut a window out of a block (1, C, z, y, x); beyond a short axis, the block is mirrored."""
    for axis, (first, n) in enumerate(zip(start, size, strict=True), start=2):
        length = block.shape[axis]
        if n <= length:
            block = block.narrow(axis, first, n)
        else:
            mirrored = torch.from_numpy(mirror_indices(first, first + n, length))
            block = block.index_select(axis, mirrored.to(block.device))
    return block


def gaussian_weights(size: Triple, device: torch.device) -> Tensor:
    """Weights (z, y, x) that fall off from the middle, with a standard deviation of size / 8."""
    z, y, x = (
        torch.exp(-0.5 * ((torch.arange(n, device=device) - (n - 1) / 2) / (n / 8)) ** 2)
        for n in size
    )
    return z[:, None, None] * y[:, None] * x
