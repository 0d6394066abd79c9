"""Proposed labels in training: a few of them beside the paint, and never against it.

No loss and no architecture knows of them. As many voxels are drawn from the proposals as
have the wanted weight against the paint, and are trained on like paint. Voxels and not
slices: of as many voxels, those that are spread over the volume tell more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.annotation import UNLABELED
from napari_volseg.data.labeled import labeled_boxes
from napari_volseg.data.tiles import start_of
from napari_volseg.sparse.pool import pool_of, to_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.annotation import Case
    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.tiles import Region
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.pool import Pool, PoolCase


def with_proposals(pool: Pool, cases: Sequence[Case], config: TrainingConfig) -> Pool:
    """Add proposed voxels to what is trained on; the held-out voxels stay what they are.

    The blocks that are held out take no proposals, which were made of the paint in them, too.

    Parameters
    ----------
    pool : Pool
        Of the paint alone; not changed.
    cases : sequence of Case
        What the pool was made of.

    Returns
    -------
    Pool
        The same one if there are no proposals, or the config gives them no weight.
    """
    if not config.proposal_weight or all(case.proposals is None for case in cases):
        return pool
    # The same voxels again after a resume, and in a training that takes up new paint.
    random = np.random.default_rng(config.seed)
    added = [
        own if case.proposals is None else _add(own, case, case.proposals, pool, config, random)
        for own, case in zip(pool.cases, cases, strict=True)
    ]
    return pool_of(added, pool.class_ids, pool.device)


def _add(
    own: PoolCase,
    case: Case,
    proposals: AnyLabels,
    pool: Pool,
    config: TrainingConfig,
    random: np.random.Generator,
) -> PoolCase:
    painted = sum(len(voxels) for voxels in own.voxels)
    wanted = config.proposal_weight * painted
    drawn = draw_proposals(case.annotation.labels, proposals, wanted, random)
    drawn = drawn[~own.blocks.held_out(drawn)]
    classes = to_target(proposals[tuple(drawn.T)], pool.class_ids)
    target = own.target.copy()
    target[tuple(drawn.T)] = classes
    voxels = [drawn[classes == k] for k in range(pool.n_classes)]
    # They fill a solid and lie on slices across every axis; one is enough to find them by.
    axes = [np.zeros(len(v), np.int8) for v in voxels]
    return replace(
        own,
        target=target,
        voxels=tuple(np.concatenate(pair) for pair in zip(own.voxels, voxels, strict=True)),
        axes=tuple(np.concatenate(pair) for pair in zip(own.axes, axes, strict=True)),
    )


def draw_proposals(
    labels: AnyLabels,
    proposals: AnyLabels,
    wanted: float,
    random: np.random.Generator,
) -> NDArray[np.int32]:
    """Draw about as many proposed voxels as are wanted, none of them painted; (N, 3).

    Parameters
    ----------
    labels, proposals : unsigned integer (Z, Y, X), numpy or ``SparseLabels``
        0 where nothing is painted, or proposed.
    """

    def unpainted(box: Region) -> NDArray[np.bool_]:
        return np.asarray((proposals[box] != UNLABELED) & (labels[box] == UNLABELED))

    # Box by box: the proposals may be most of a large volume.
    boxes = labeled_boxes(proposals)
    counts = [np.count_nonzero(unpainted(box)) for box in boxes]
    chance = wanted / max(1, sum(counts))
    drawn = [np.zeros((0, 3), np.int64)]
    for box, count in zip(boxes, counts, strict=True):
        inside = np.argwhere(unpainted(box))[random.random(count) < chance]
        drawn.append(inside + start_of(box))
    return np.concatenate(drawn).astype(np.int32)
