"""Labels that reach a training while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data.annotation import UNLABELED, default_classes
from napari_volseg.data.errors import InputError
from napari_volseg.sparse.relabel import relabel, with_classes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_volseg.data.annotation import Case, LabelClass
    from napari_volseg.data.tiles import Region
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.pool import Pool
    from napari_volseg.training.events import LabelBox, NewLabels


LARGEST_LABEL = int(np.iinfo(np.uint16).max)


@dataclass(eq=False)
class Material:
    """What a training learns from; it changes when new labels come.

    Attributes
    ----------
    cases : tuple of Case
        As the training knows them now.
    pool : Pool
        Made of them.
    waiting : list of label box
        New labels that cannot be learned from until others come.
    left_out : set of int
        Classes that came after the training began, and have no weight.
    """

    cases: tuple[Case, ...]
    pool: Pool
    waiting: list[LabelBox] = field(default_factory=list)
    left_out: set[int] = field(default_factory=set)
    _own: bool = False

    def own_labels(self, largest: int) -> None:
        """Copy the labels of the first case, once: they are about to change, up to a label."""
        labels = self.cases[0].annotation.labels
        dtype = np.result_type(labels.dtype, np.min_scalar_type(largest))
        if not self._own or labels.dtype != dtype:
            self._put(labels=labels.astype(dtype))
            self._own = True

    def know_classes(self, given: Sequence[LabelClass]) -> None:
        """Name the classes of the pool that the first case does not know."""
        known = {c.id: c for c in self.cases[0].annotation.classes}
        added = set(self.pool.class_ids) - known.keys()
        if not added:
            return
        known |= {c.id: c for c in (*default_classes(sorted(added)), *given) if c.id in added}
        self._put(classes=tuple(known[i] for i in sorted(known)))

    def _put(self, **changed: Any) -> None:
        first = self.cases[0]
        annotation = replace(first.annotation, **changed)
        self.cases = (replace(first, annotation=annotation), *self.cases[1:])


def take_labels(
    material: Material, news: NewLabels, config: TrainingConfig, step: int
) -> tuple[bool, str]:
    """Learn from new labels from now on.

    Returns
    -------
    changed : bool
        Whether the pool is another one now.
    note : str
        What of them is left out and why, or "".
    """
    case = material.cases[0]
    try:
        boxes = [fitted(box, case) for box in news.boxes]
    except InputError as error:
        return False, str(error)
    boxes = [*material.waiting, *boxes]
    painted = {int(i) for _, values in boxes for i in np.unique(values)} - {UNLABELED}
    material.own_labels(max(painted, default=0))
    labels = material.cases[0].annotation.labels
    if config.class_weights:
        material.left_out |= painted - set(material.pool.class_ids)
    before = []
    for region, values in boxes:
        put = np.where(np.isin(values, list(material.left_out)), UNLABELED, values)
        if not np.array_equal(put, labels[region]):
            before.append((region, labels[region].copy()))
            labels[region] = put
    material.waiting = []
    if before:
        # From the seed and the step, as everything random, so that it is repeatable.
        random = np.random.default_rng((config.seed, step))
        try:
            regions = [region for region, _ in before]
            now = {int(i) for region in regions for i in np.unique(labels[region])} - {UNLABELED}
            pool = with_classes(material.pool, now)
            material.pool = relabel(pool, labels, regions, config.held_out, random)
            material.know_classes(news.classes)
        except InputError as error:
            for region, values in reversed(before):
                labels[region] = values
            material.waiting = boxes
            return False, f"{error}; until then, training goes on with what was painted before"
    return bool(before), unweighted_note(sorted(material.left_out))


def fitted(box: LabelBox, case: Case) -> LabelBox:
    """Return a label box with the numbers of its region spelled out.

    Raises
    ------
    InputError
        If there is not one label for each voxel of a region inside the volume.
    """
    region, values = box
    shape = case.volume.shape
    sides = [slice(*side.indices(n)) for side, n in zip(region, shape, strict=True)]
    inside: Region = (sides[0], sides[1], sides[2])
    size = tuple(side.stop - side.start for side in inside)
    fits = values.shape == size and np.issubdtype(values.dtype, np.integer)
    if not fits or (values.size and not 0 <= values.min() <= values.max() <= LARGEST_LABEL):
        place = ", ".join(f"{side.start}:{side.stop}" for side in region)
        raise InputError(
            f"{case.volume.name}: new labels of shape {values.shape} and type {values.dtype} for "
            f"the region ({place}) of a volume of {shape} are left out; send one integer from 0 "
            f"to {LARGEST_LABEL} for each of its voxels"
        )
    return inside, values


def unweighted_note(ids: Sequence[int]) -> str:
    """Say that classes came which the user has given no weight."""
    if not ids:
        return ""
    listed = ", ".join(str(i) for i in ids)
    which = f"class {listed} is" if len(ids) == 1 else f"classes {listed} are"
    return f"{which} new and left out; add to the class weights, and train again"
