"""Labels for the slices between painted ones, by outline and by image.

Two opinions are multiplied (log-odds are added). The outlines': signed distances to them,
interpolated from one painted slice to the next (Herman 1992). The image's: a pixel
classifier, learned within seconds from all paint. What was tried is in docs/between.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch.optim.lr_scheduler import LambdaLR

from napari_volseg.data.annotation import UNLABELED, VIEW_OF_AXIS, Annotation, Case
from napari_volseg.data.errors import InputError
from napari_volseg.data.tiles import crop_around
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.labeled_blocks import block_responses
from napari_volseg.sparse.pixel_stage import pixel_stage
from napari_volseg.sparse.pixels import PixelClassifier
from napari_volseg.sparse.pool import build_pool
from napari_volseg.training.priority import lower_thread_priority

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.tiles import Region
    from napari_volseg.data.volume import Volume
    from napari_volseg.sparse.pool import Pool, PoolCase
    from napari_volseg.sparse.stage import Stage

FILTER_SCALES = (1.0, 2.0, 4.0, 8.0)
"""Of the pixel classifier, in units of the finest voxel side."""

STEPS = 200
"""Of its training: a second of one core."""

LEARNING = 0.3
"""Part of the progress bar that learning gets."""

TILE, HALO = 128, 4
"""Voxels of a tile within the slices, and of what it sees around: no less than ``FARTHEST``."""

FARTHEST = 4.0
"""Voxels of the finest side beyond which an outline is just far, lest a class that is
missing in one of the two slices vanish at once."""

TRUST_IN_SHAPE = 1.25
"""By which log-odds grow for each distance from the outline that equals that to the next painted
slice."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """How far the work is, and labels of a region if one is done.

    Attributes
    ----------
    fraction : float
        0 to 1.
    region : region or None
        None while the gray values of the classes are learned.
    labels : (z, y, x), dtype of the annotation, or None
        0 where nothing is proposed: where there is paint, or paint tells nothing.
    """

    fraction: float
    region: Region | None = None
    labels: NDArray[np.unsignedinteger] | None = field(default=None, repr=False)


def propose_between(
    volume: Volume,
    labels: NDArray[np.unsignedinteger],
    axis: int,
    slices: Sequence[int],
    *,
    near: int | None = None,
) -> Iterator[Proposal]:
    """Propose labels for the slices between painted ones of one axis.

    Yields while it learns and after each tile; closing the generator cancels. Memory beyond
    what a training keeps of the volume is that of a tile.

    Parameters
    ----------
    volume : Volume
    labels : uint8 or uint16 (Z, Y, X)
        0 is unlabeled. A slice counts where it is painted: where both of a pair are
        unlabeled, nothing is proposed between. Other paint between them guides, and stays.
    axis : int
        0, 1, 2 is z, y, x.
    slices : sequence of int
        The painted slices of that axis.
    near : int, optional
        Slice around which to begin.

    Raises
    ------
    InputError
        If there is no slice between painted ones, fewer than two classes are painted, or
        volume and labels do not fit each other.
    """
    lower_thread_priority()
    pairs = [(a, b) for a, b in pairwise(sorted(slices)) if b - a > 1]
    if not pairs:
        raise InputError(
            f"no unpainted slice lies between two painted {VIEW_OF_AXIS[axis]} slices; paint a "
            f"second {VIEW_OF_AXIS[axis]} slice some slices away"
        )
    if near is not None:
        pairs.sort(key=lambda pair: abs(near - (pair[0] + pair[1]) / 2))
    # Half way to equal influence of all classes: the outlines know how frequent each is.
    config = TrainingConfig(held_out=0, balance=0.5, steps=STEPS)
    case = Case(volume, Annotation(labels))
    pool = build_pool([case], config, torch.device("cpu"))
    classifier = new_classifier(volume, pool.n_classes, config.seed)
    for fraction in learn(classifier, pool, config):
        yield Proposal(LEARNING * fraction)
    regions = [r for pair in pairs for r in regions_between(volume.shape, axis, *pair)]
    for done, region in enumerate(regions, start=1):
        found = propose_region(classifier, pool, labels, axis, region)
        yield Proposal(LEARNING + (1 - LEARNING) * done / len(regions), region, found)


def new_classifier(volume: Volume, n_classes: int, seed: int) -> PixelClassifier:
    """Make a pixel classifier that fits the voxels of a volume."""
    scales = [scale * min(volume.spacing) for scale in FILTER_SCALES]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PixelClassifier(volume.channels, n_classes, scales, volume.spacing)


def learn(classifier: PixelClassifier, pool: Pool, config: TrainingConfig) -> Iterator[float]:
    """Train a pixel classifier on all paint; yields the part that is done, 0 to 1."""
    stage = pixel_stage(config, pool, lambda module: module)
    for done in stage.prepare(classifier):
        yield done / 2
    for step in take_steps(classifier, stage, config):
        yield (1 + (step + 1) / config.steps) / 2
    classifier.eval()


def take_steps(
    classifier: PixelClassifier, stage: Stage[PixelClassifier], config: TrainingConfig
) -> Iterator[int]:
    """Take the steps of a stage that is prepared; yields the number of each."""
    optimizer = stage.optimizer(stage.parameters(classifier))
    rate = LambdaLR(optimizer, lambda step: stage.schedule(step / config.steps, []))
    random = torch.Generator().manual_seed(config.seed)
    for step in range(config.steps):
        optimizer.zero_grad()
        loss = stage.loss(classifier, stage.sample(random), step)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rate.step()
        yield step


def regions_between(shape: Sequence[int], axis: int, first: int, last: int) -> Iterator[Region]:
    """Cut what lies between two painted slices into regions that all reach from one to the other.

    The painted slices themselves are outside.
    """
    z, y, x = (
        [slice(first + 1, last)]
        if a == axis
        else [slice(start, min(start + TILE, n)) for start in range(0, n, TILE)]
        for a, n in enumerate(shape)
    )
    yield from product(z, y, x)


def propose_region(
    classifier: PixelClassifier,
    pool: Pool,
    labels: NDArray[np.unsignedinteger],
    axis: int,
    region: Region,
) -> NDArray[np.unsignedinteger]:
    """Propose labels for a region of ``regions_between``.

    Returns
    -------
    (z, y, x), dtype of the labels
        0 where nothing is proposed.
    """
    (case,) = pool.cases
    z, y, x = (1 if a == axis else HALO for a in range(3))
    around, within = crop_around(region, (z, y, x), (1, 1, 1), labels.shape)
    # From here on the first axis leads from one painted slice to the other.
    known = np.moveaxis(labels[around], axis, 0)
    spacing = (case.volume.spacing[axis], *np.delete(case.volume.spacing, axis))
    classes, distances = interpolate_outlines(known, spacing)
    proposed = classes[distances.argmax(0)]
    rivals = classes != UNLABELED
    if rivals.sum() > 1:
        steps = np.arange(len(known))
        away = spacing[0] * np.minimum(steps, steps[::-1]).clip(1)[:, None, None]
        logits = np.moveaxis(image_logits(classifier, case, around), axis + 1, 1)
        odds = TRUST_IN_SHAPE * distances[rivals] / away
        odds += logits[np.searchsorted(pool.class_ids, classes[rivals])]
        refined = classes[rivals][odds.argmax(0)]
        proposed = np.where(proposed == UNLABELED, UNLABELED, refined)
    proposed = np.where(known == UNLABELED, proposed, UNLABELED)
    return np.ascontiguousarray(np.moveaxis(proposed, 0, axis)[within])


def interpolate_outlines(
    labels: NDArray[np.unsignedinteger], spacing: Sequence[float]
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.float32]]:
    """Interpolate the outlines in the first and the last slice of some labels.

    Being unlabeled is a class like others: where it is the one that is deepest inside its
    outline, the two slices tell nothing.

    Parameters
    ----------
    labels : uint8 or uint16 (n, y, x)
        Only the first and the last slice count.
    spacing : (n, y, x)

    Returns
    -------
    classes : (K,)
        The labels that occur.
    distances : float32 (K, n, y, x)
        To the outline of each, positive inside, cut off at ``FARTHEST`` voxels.
    """
    ends = labels[[0, -1]]
    classes = np.unique(ends)
    far = FARTHEST * min(spacing)
    part = np.linspace(0, 1, len(labels), dtype=np.float32)[:, None, None]
    distances = np.empty((len(classes), *labels.shape), np.float32)
    for k, label in enumerate(classes):
        first, last = (signed_distance(end == label, spacing[1:]).clip(-far, far) for end in ends)
        distances[k] = (1 - part) * first + part * last
    return classes, distances


def signed_distance(inside: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Distance to the outline of a 2D region, positive inside; far where there is none."""
    if inside.all() or not inside.any():
        far = float(np.dot(inside.shape, spacing))
        return np.full(inside.shape, far if inside.all() else -far)
    to_outside = np.asarray(distance_transform_edt(inside, spacing))
    return to_outside - np.asarray(distance_transform_edt(~inside, spacing))


@torch.no_grad()
def image_logits(
    classifier: PixelClassifier, case: PoolCase, region: Region
) -> NDArray[np.float32]:
    """Logits (K, z, y, x) of a region by its gray values alone."""
    (responses,) = block_responses(classifier, case, [region], torch.device("cpu"))
    logits: NDArray[np.float32] = classifier.over([responses[None]]).mean(0)[0].numpy()
    return logits
