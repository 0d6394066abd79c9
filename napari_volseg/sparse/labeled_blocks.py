"""The features of labeled voxels, from which the pixel classifier learns.

Labeled slices are cut into blocks, for most of a volume is filtered for nothing. What learned
filters see is far wider than a block: they run once over blocks that lie near each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from napari_volseg.data.sparse_labels import equal_numbers
from napari_volseg.data.tiles import around, box_size, crop_around, relative, start_of
from napari_volseg.sparse.draw import draw_until_enough
from napari_volseg.sparse.filters import alignment, widest_reach
from napari_volseg.sparse.learned_filters import learned_alignment, learned_reach
from napari_volseg.sparse.position import with_region_position

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.tiles import Region
    from napari_volseg.sparse.pixels import PixelClassifier
    from napari_volseg.sparse.plan import Triple
    from napari_volseg.sparse.pool import Pool, PoolCase

BLOCK = 64
"""Width of the blocks in which labeled slices are filtered, in voxels. Across the slice a
block is as thin as the filters' grids allow: most of a cube would be filtered for nothing."""

MOST_VOXELS = 400_000
"""Labeled voxels that the classifier learns from. With fewer, parts of a large volume would not be
seen, and blocks that lie apart save little time."""

FEWEST_VOXELS = 2_000
"""Of a class, before those of others are enough."""

MOST_SEEN = 200**3
"""Voxels over which learned filters run at once: no more than the prediction of a tile takes."""


@dataclass(frozen=True, eq=False)
class Block:
    """Labeled voxels of slices of one orientation, held-out ones among them.

    Attributes
    ----------
    case : PoolCase
    core : region
        Where they are.
    voxels : int64 (N, 3)
    classes : int64 (N,)
    held_out : bool (N,)
        Those to judge by, not to train on.
    """

    case: PoolCase
    core: Region
    voxels: Tensor
    classes: Tensor
    held_out: Tensor

    @property
    def key(self) -> tuple[int, ...]:
        """The sides of its core."""
        return tuple(end for side in self.core for end in (side.start, side.stop))

    def trained_on(self, n_classes: int) -> NDArray[np.int64]:
        """Count its voxels of each class (K,), but for held-out ones."""
        classes = self.classes[~self.held_out]
        return np.asarray(classes.bincount(minlength=n_classes).numpy())

    def pick(self, values: Tensor) -> Tensor:
        """Take what its voxels have (N, F) of all that its core has (F, z, y, x)."""
        start = torch.tensor(start_of(self.core))
        z, y, x = (self.voxels - start).T.to(values.device)
        return values[:, z, y, x].T


def labeled_responses(
    pool: Pool, classifier: PixelClassifier
) -> Iterator[tuple[float, Block, Tensor]]:
    """Filter responses of labeled voxels, block by block.

    Of very many labeled voxels, blocks are drawn; those with rare classes are not left out.
    Where a block is the same again, its responses were kept.

    Yields
    ------
    done : float
        Part of the work that is done, 0 to 1.
    block : Block
    features : float32 (N, F)
        On the pool's device.
    """
    filters = ("responses", *classifier.filters)
    drawn, done = drawn_blocks(pool, classifier), 0
    for case in pool.cases:
        kept = case.kept.setdefault(filters, {})
        new = []
        for block in (block for block in drawn if block.case is case):
            if block.key in kept and torch.equal(kept[block.key][0], block.voxels):
                done += 1
                yield done / len(drawn), block, kept[block.key][1]
            else:
                new.append(block)
        for group in neighbors(new, learned_reach(classifier.voxel), MOST_SEEN):
            found = block_responses(classifier, case, [b.core for b in group], pool.device)
            for block, responses in zip(group, found, strict=True):
                if classifier.position:
                    responses = with_region_position(responses, block.core, case.volume.shape)
                features = block.pick(responses)
                kept[block.key] = block.voxels, features
                done += 1
                yield done / len(drawn), block, features


def drawn_blocks(pool: Pool, classifier: PixelClassifier) -> list[Block]:
    """Draw blocks until there are enough labeled voxels, and of each class."""
    blocks = [block for case in pool.cases for block in labeled_blocks(case, classifier)]
    counts = [block.trained_on(pool.n_classes) for block in blocks]
    costs = [int(found.sum()) for found in counts]
    return [blocks[n] for n in draw_until_enough(counts, costs, MOST_VOXELS, FEWEST_VOXELS)]


def labeled_blocks(case: PoolCase, classifier: PixelClassifier) -> Iterator[Block]:
    """Cut the labeled slices of a case into blocks."""
    voxels, classes = case.labeled()
    judged, judged_classes, judged_axes = case.judged
    held_out = torch.arange(len(voxels) + len(judged)) >= len(voxels)
    voxels = torch.cat([voxels, torch.from_numpy(judged).long()])
    classes = torch.cat([classes, torch.from_numpy(judged_classes).long()])
    axes = torch.from_numpy(np.concatenate([*case.axes, judged_axes]))
    align = classifier.alignment
    for axis in range(3):
        edges = [a if n == axis else -(-BLOCK // a) * a for n, a in enumerate(align)]
        own = voxels[axes == axis]
        own_classes, own_held_out = classes[axes == axis], held_out[axes == axis]
        grid = tuple(-(-n // e) for n, e in zip(case.volume.shape, edges, strict=True))
        corners = (own // torch.tensor(edges)).numpy()
        # As one number each: rows of three take a hundred times as long to be compared.
        for part in equal_numbers(np.ravel_multi_index(tuple(corners.T), grid)):
            z, y, x = (
                slice(c * e, min((c + 1) * e, n))
                for c, e, n in zip(corners[part[0]].tolist(), edges, case.volume.shape, strict=True)
            )
            yield Block(case, (z, y, x), own[part], own_classes[part], own_held_out[part])


def neighbors(blocks: Sequence[Block], reach: Triple, most: int) -> list[list[Block]]:
    """Group blocks of a volume where no more of it is seen together than apart.

    Parameters
    ----------
    reach : (z, y, x)
        Voxels that are seen around each block.
    most : int
        Voxels that may be seen together.
    """

    def seen(box: Region) -> int:
        needed, _ = crop_around(box, reach, (1, 1, 1), blocks[0].case.volume.shape)
        return box_size(needed)

    groups = [(block.core, [block]) for block in sorted(blocks, key=lambda block: block.key)]
    before = 0
    # Rows of blocks first, then rows with rows, until nothing is saved any more.
    while before != len(groups):
        before, apart, groups = len(groups), groups, []
        for box, members in apart:
            best, least = None, seen(box)
            for index, (other, _) in enumerate(groups):
                together = seen(around([box, other]))
                if together <= most and together - seen(other) <= least:
                    best, least = index, together - seen(other)
            if best is None:
                groups.append((box, members))
            else:
                other, near = groups[best]
                groups[best] = around([box, other]), near + members
    return [members for _, members in groups]


def block_responses(
    classifier: PixelClassifier, case: PoolCase, cores: Sequence[Region], device: torch.device
) -> Iterator[Tensor]:
    """Yield the filter responses (F, z, y, x) of the gray values of cores near each other."""
    voxel, shape = classifier.voxel, case.volume.shape
    reach, align = widest_reach(classifier.scales, voxel), alignment(classifier.scales, voxel)

    def read(region: Region) -> Tensor:
        return case.read(region).to(device)[None]

    learned: Iterator[Tensor | None] = repeat(None)
    if classifier.learned is not None:
        box = around(cores)
        seen, _ = crop_around(box, learned_reach(voxel), learned_alignment(voxel), shape)
        parts = [relative(core, seen) for core in cores]
        learned = classifier.learned.responses_of_each(read(seen), parts)
    for core, last in zip(cores, learned, strict=False):
        seen, within = crop_around(core, reach, align, shape)
        found = list(classifier.fixed_responses(read(seen), within))
        yield torch.cat(found if last is None else [*found, last], 1)[0]
