"""Sizes that fit the voxels and the volume: where to pool, which kernels, how large a patch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from napari_volseg.data.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_volseg.data.annotation import Case

Triple = tuple[int, int, int]

STRETCH = 1.15
"""How much longer a side of a tile may be, where fewer tiles are enough then."""


def plan_resolution(
    spacing: Sequence[float], shape: Sequence[int], levels: int
) -> tuple[tuple[Triple, ...], tuple[Triple, ...]]:
    """Choose pooling and kernels from voxel size and volume.

    Returns
    -------
    pooling : (z, y, x) for each of up to ``levels - 1`` transitions
    kernels : (z, y, x) for each resolution step
    """
    size, left = list(spacing), list(shape)
    pooling: list[Triple] = []
    kernels: list[Triple] = [_kernel(size, left)]
    while len(pooling) < levels - 1:
        finest = min(s for s, n in zip(size, left, strict=True) if n > 1) if max(left) > 1 else 0
        pool = [2 if s < 2 * finest and n >= 8 else 1 for s, n in zip(size, left, strict=True)]
        if pool == [1, 1, 1]:
            break
        pooling.append((pool[0], pool[1], pool[2]))
        size = [s * p for s, p in zip(size, pool, strict=True)]
        left = [n // p for n, p in zip(left, pool, strict=True)]
        kernels.append(_kernel(size, left))
    return tuple(pooling), tuple(kernels)


def _kernel(size: Sequence[float], left: Sequence[int]) -> Triple:
    # A neighbor twice as far as another tells half as much: leave it out until pooling
    # has brought the others as far.
    z, y, x = (3 if n > 1 and s <= 2.5 * min(size) else 1 for s, n in zip(size, left, strict=True))
    return z, y, x


def plan_patch(
    spacing: Sequence[float], shape: Sequence[int], pooling: Sequence[Triple], voxels: int
) -> Triple:
    """Choose a patch of about ``voxels`` voxels, a cube in space, inside the volume.

    Each side is a multiple of what pooling divides by. What an axis of the volume is
    too short for, the others get.
    """
    divisor = pooled(pooling)
    limit = [-(-n // d) * d for n, d in zip(shape, divisor, strict=True)]
    sides = [0, 0, 0]
    free = {0, 1, 2}
    while free:
        rest = voxels / math.prod(sides[a] for a in range(3) if a not in free)
        edge = (rest * math.prod(spacing[a] for a in free)) ** (1 / len(free))
        tight = {a for a in free if edge / spacing[a] >= limit[a]}
        for a in tight or free:
            wanted = max(1, round(edge / spacing[a] / divisor[a])) * divisor[a]
            sides[a] = min(wanted, limit[a])
        free -= tight or free
    return sides[0], sides[1], sides[2]


def plan_core(tile: Triple, shape: Sequence[int], align: Triple) -> Triple:
    """Fit a tile to a volume: of about as many voxels, and equal parts of the volume.

    What an axis of the volume is too short for, the others get: fewer tiles read less context.

    Returns
    -------
    (z, y, x), multiples of ``align``
    """
    fitted = plan_patch([1 / side for side in tile], shape, [align], math.prod(tile))
    parts = (math.ceil(n / (STRETCH * side)) for n, side in zip(shape, fitted, strict=True))
    z, y, x = (-(-n // (p * a)) * a for n, p, a in zip(shape, parts, align, strict=True))
    return z, y, x


def each(choose: Callable[[int, int], int], first: Triple, second: Triple) -> Triple:
    """Combine two triples axis by axis."""
    z, y, x = map(choose, first, second)
    return z, y, x


def largest_shape(cases: Sequence[Case]) -> Triple:
    """Shape (z, y, x) that holds every volume."""
    z, y, x = (max(case.volume.shape[axis] for case in cases) for axis in range(3))
    return z, y, x


def inside(shape: Sequence[int]) -> Triple:
    """Largest patch (z, y, x) to train on in a volume of that shape: two thirds of each side.

    A patch as large as the volume shows the painted slices always at the same place, and a
    network learns by heart where they are instead of what they show.
    """
    z, y, x = (-(-2 * n // 3) for n in shape)
    return z, y, x


def pooled(pooling: Sequence[Triple]) -> Triple:
    """Voxels (z, y, x) that one voxel after all the poolings stands for."""
    z, y, x = (math.prod(p[a] for p in pooling) for a in range(3))
    return z, y, x


def valid_margin(pooling: Sequence[Triple], kernels: Sequence[Triple]) -> Triple:
    """Voxels (z, y, x) that a U-Net's valid convolutions take off each side.

    Parameters
    ----------
    pooling : (z, y, x) for each transition
    kernels : (z, y, x) for each resolution step, two convolutions each way
    """
    reach = []
    for axis in range(3):
        scale, total = 1, 0
        for step, kernel in enumerate(kernels):
            # Two convolutions on the way down, and two on the way up save at the bottom.
            visits = 1 if step == len(pooling) else 2
            total += visits * 2 * (kernel[axis] // 2) * scale
            if step < len(pooling):
                scale *= pooling[step][axis]
        reach.append(total)
    return reach[0], reach[1], reach[2]


def valid_size(size: Triple, pooling: Sequence[Triple], kernels: Sequence[Triple]) -> Triple:
    """Round an output size (z, y, x) up to one at which valid convolutions line up with pooling.

    Raises
    ------
    InputError
        If there is none.
    """
    divisor = pooled(pooling)
    rests = [_valid_rest(pooling, kernels, axis) for axis in range(3)]
    z, y, x = (-(-(n - r) // d) * d + r for n, r, d in zip(size, rests, divisor, strict=True))
    return z, y, x


def _valid_rest(pooling: Sequence[Triple], kernels: Sequence[Triple], axis: int) -> int:
    # The lowest step must see whole voxels: input = output + 2 margin, divided by each
    # pooling after the convolutions above it; the remainder is the same for all sizes.
    divisor, margin = pooled(pooling)[axis], valid_margin(pooling, kernels)[axis]
    for rest in range(divisor):
        size = rest + 2 * margin + divisor * 8
        for step, pool in enumerate(pooling):
            size -= 2 * (kernels[step][axis] // 2) * 2
            if size % pool[axis]:
                break
            size //= pool[axis]
        else:
            return rest
    raise InputError(f"no tile size fits the poolings {pooling} and kernels {kernels}")
