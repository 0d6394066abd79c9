"""Labels that change under a running training: only what changed is looked at again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.errors import InputError
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.data.tiles import crop_around
from napari_volseg.sparse.hold_out import share_out
from napari_volseg.sparse.places import slice_axes
from napari_volseg.sparse.pool import pool_of, to_target
from napari_volseg.sparse.stage import IGNORE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.tiles import Region
    from napari_volseg.sparse.pool import Pool, PoolCase


def relabel(
    pool: Pool,
    labels: AnyLabels,
    regions: Sequence[Region],
    part: float,
    random: np.random.Generator,
) -> Pool:
    """Take over how the labels of the first case have become, at a cost of what changed.

    What is held out stays so, and what is trained on: blocks that had no paint before are
    shared out as ``build_pool`` does it. The pool that is given must not be used again.

    Parameters
    ----------
    labels : unsigned integer (Z, Y, X), numpy or ``SparseLabels``
        All of them, as they are now; none but 0 and the pool's classes.
    regions : sequence of region
        Inside the volume; everywhere else the labels are as before. They may overlap.
    part : float
        Part of the blocks that is held out.

    Raises
    ------
    InputError
        If fewer than two classes are left to train on; nothing is changed then.
    """
    case = pool.cases[0]
    # A voxel's slice is told by its neighbors too.
    seen = [crop_around(region, (1,) * 3, (1,) * 3, case.target.shape)[0] for region in regions]

    def before(region: Region) -> NDArray[np.int16]:
        return np.asarray(np.maximum(case.target[region], case.held_out[region]))

    def now(region: Region) -> NDArray[np.int16]:
        return to_target(labels[region], pool.class_ids)

    gone, old = _labeled(before, seen, case.target.shape)
    come, new = _labeled(now, seen, case.target.shape)
    old_places, places = (_positions(flat, case.target.shape) for flat in (gone, come))
    counts = case.blocks.counts - case.blocks.count(old_places, old)
    counts += case.blocks.count(places, new)
    blocks = share_out(case.blocks, counts, part, random)
    out = blocks.held_out(places)
    gone_out = case.blocks.held_out(old_places)
    merged = [
        _merge(case, k, gone[(old == k) & ~gone_out], come[(new == k) & ~out], labels)
        for k in range(pool.n_classes)
    ]
    relabeled = replace(
        case,
        voxels=tuple(voxels for voxels, _ in merged),
        axes=tuple(axes for _, axes in merged),
        blocks=blocks,
    )
    changed = pool_of((relabeled, *pool.cases[1:]), pool.class_ids, pool.device)
    if np.count_nonzero(changed.counts) < 2:
        raise InputError("fewer than two classes are left to train on; paint another one")
    for region in seen:
        case.target[region] = case.held_out[region] = IGNORE
    case.target[tuple(places[~out].T)] = new[~out]
    case.held_out[tuple(places[out].T)] = new[out]
    return changed


def with_classes(pool: Pool, ids: Collection[int]) -> Pool:
    """Make room for classes that a pool does not know yet; they have no paint as yet.

    Returns
    -------
    Pool
        The same one if it knows them all.
    """
    class_ids = tuple(sorted({*pool.class_ids, *ids}))
    if class_ids == pool.class_ids:
        return pool
    place = [class_ids.index(i) for i in pool.class_ids]
    # Its last entry is also that of IGNORE, which is -1.
    table = np.array([*place, IGNORE], dtype=np.int16)
    old = [pool.class_ids.index(i) if i in pool.class_ids else None for i in class_ids]
    cases = [_grown(case, table, old) for case in pool.cases]
    return pool_of(cases, class_ids, pool.device)


def _grown(case: PoolCase, table: NDArray[np.int16], old: Sequence[int | None]) -> PoolCase:
    """Return a case with other class indices: of each old one, and the old of each new one."""
    counts = np.zeros((len(old), *case.blocks.use.shape), np.int64)
    counts[table[:-1]] = case.blocks.counts
    no_voxels, no_axes = np.zeros((0, 3), np.int32), np.zeros(0, np.int8)
    return replace(
        case,
        target=_looked_up(table, case.target),
        held_out=_looked_up(table, case.held_out),
        voxels=tuple(no_voxels if k is None else case.voxels[k] for k in old),
        axes=tuple(no_axes if k is None else case.axes[k] for k in old),
        blocks=replace(case.blocks, counts=counts),
    )


def _looked_up(table: NDArray[np.int16], target: AnyLabels) -> AnyLabels:
    if isinstance(target, SparseLabels):
        return target.map(lambda classes: table[classes], np.int16, IGNORE)
    return np.asarray(table[target])


def _labeled(
    read: Callable[[Region], NDArray[np.int16]], regions: Sequence[Region], shape: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
    """Find the labeled voxels of regions, each once: flat index, ascending, and class index."""
    flats, classes = [], []
    for region in regions:
        target = read(region)
        inside = np.nonzero(target != IGNORE)
        whole = [found + side.start for found, side in zip(inside, region, strict=True)]
        flats.append(np.ravel_multi_index(whole, tuple(shape)))
        classes.append(target[inside])
    flat, first = np.unique(np.concatenate(flats), return_index=True)
    return flat, np.concatenate(classes)[first]


def _positions(flat: NDArray[np.int64], shape: Sequence[int]) -> NDArray[np.int32]:
    return np.stack(np.unravel_index(flat, tuple(shape)), 1).astype(np.int32)


def _merge(
    case: PoolCase,
    k: int,
    gone: NDArray[np.int64],
    come: NDArray[np.int64],
    labels: AnyLabels,
) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
    """Return voxels and axes of a class without those that went and with those that came.

    In the order of the volume, as if they had all been found at once: which one a step
    draws must not depend on when it was painted.
    """
    if not len(gone) and not len(come):
        return case.voxels[k], case.axes[k]
    shape = case.target.shape
    places = _positions(come, shape)
    flat = np.ravel_multi_index(tuple(case.voxels[k].T), shape)
    left = np.ones(len(flat), dtype=bool)
    left[np.searchsorted(flat, gone)] = False
    at = np.searchsorted(flat[left], come)
    voxels = np.insert(case.voxels[k][left], at, places, axis=0)
    return voxels, np.insert(case.axes[k][left], at, slice_axes(labels, places))
