"""Which labeled voxels are held out: whole blocks of them, decided once and for good."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

HELD_OUT_BLOCK = 12
"""Edge of the blocks that are held out, in voxels of the finest axis: larger than
noise and staining grain, so that a held-out voxel is no copy of a trained neighbor."""

UNDECIDED, TRAINED, HELD_OUT = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Blocks:
    """The blocks of a volume.

    Attributes
    ----------
    edge : int (3,)
        Of a block, in voxels (z, y, x).
    counts : int64 (K, Z, Y, X)
        Labeled voxels of each class in each block.
    use : int8 (Z, Y, X)
        ``TRAINED`` or ``HELD_OUT``; ``UNDECIDED`` where nothing was painted yet.
    """

    edge: NDArray[np.intp]
    counts: NDArray[np.int64] = field(repr=False)
    use: NDArray[np.int8] = field(repr=False)

    def held_out(self, positions: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Tell which positions (N, 3) lie in blocks that are held out."""
        return np.asarray(self.use[tuple((positions // self.edge).T)] == HELD_OUT)

    def half(self, positions: NDArray[np.integer]) -> NDArray[np.int64]:
        """Tell which half of the blocks positions (N, 3) are in, 0 or 1: always the same one."""
        return np.asarray((positions // self.edge).sum(1) % 2)

    def count(
        self, positions: NDArray[np.integer], classes: NDArray[np.integer]
    ) -> NDArray[np.int64]:
        """Count labeled voxels (N, 3) of class indices (N,) like ``counts``."""
        block = np.ravel_multi_index(tuple((positions // self.edge).T), self.use.shape)
        pairs = classes.astype(np.int64) * self.use.size + block
        return np.bincount(pairs, minlength=self.counts.size).reshape(self.counts.shape)


def empty_blocks(
    shape: Sequence[int], n_classes: int, spacing: Sequence[float], use: NDArray[np.int8] | None
) -> Blocks:
    """Cut a volume into blocks that hold no paint, for the use that is decided on, if any."""
    edge, grid = block_grid(shape, spacing)
    decided = np.full(grid, UNDECIDED, np.int8) if use is None else use
    return Blocks(edge, np.zeros((n_classes, *grid), np.int64), decided)


def block_grid(
    shape: Sequence[int], spacing: Sequence[float]
) -> tuple[NDArray[np.intp], tuple[int, ...]]:
    """Return the edge of the blocks of a volume, and how many there are along each axis."""
    edge = np.maximum(1, np.round(HELD_OUT_BLOCK * min(spacing) / np.asarray(spacing))).astype(int)
    return edge, tuple((-(-np.asarray(shape) // edge)).tolist())


def share_out(
    blocks: Blocks, counts: NDArray[np.int64], part: float, random: np.random.Generator
) -> Blocks:
    """Decide on the blocks that have paint for the first time.

    Each class loses about ``part`` of its blocks, at least one where it has two or more,
    and of those to decide on never its last: no class that was painted goes untrained.
    Earlier decisions stay, even if the paint went meanwhile: no score must be of voxels
    that the network has seen.

    Parameters
    ----------
    counts : int64 (K, Z, Y, X)
        The labeled voxels, as they are now.
    """
    by_class = counts.reshape(len(counts), -1)
    use = blocks.use.ravel()
    free = by_class.any(0) & (use == UNDECIDED)
    chosen = use == HELD_OUT
    if part > 0:
        # Rare classes choose first, while every block is still free to be trained on.
        for k in np.argsort(by_class.sum(1)):
            with_class = np.flatnonzero(by_class[k])
            want = round(part * len(with_class)) or (1 if len(with_class) > 1 else 0)
            order = random.permutation(with_class[free[with_class] & ~chosen[with_class]])
            chosen[order[: max(0, want - int(chosen[with_class].sum()))]] = True
    # A block serves all classes in it: give one back to a class that lost its last.
    for found in by_class:
        with_class = np.flatnonzero(found)
        to_give = with_class[free[with_class]]
        if len(to_give) and chosen[with_class].all():
            chosen[random.choice(to_give)] = False
    decided = np.where(free, np.where(chosen, HELD_OUT, TRAINED), use).astype(np.int8)
    return replace(blocks, counts=counts, use=decided.reshape(blocks.use.shape))
