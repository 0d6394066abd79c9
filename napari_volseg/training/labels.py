"""Labels that reach a training while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.annotation import UNLABELED
from napari_volseg.data.errors import InputError
from napari_volseg.sparse.relabel import relabel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_volseg.data.annotation import Case
    from napari_volseg.data.tiles import Region
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.pool import Pool
    from napari_volseg.training.events import LabelBox, NewLabels


@dataclass(eq=False)
class Material:
    """What a training learns from; it changes when new labels come.

    Attributes
    ----------
    cases : tuple of Case
        As the training knows them now: without classes that came after it began.
    pool : Pool
        Made of them.
    waiting : list of label box
        New labels that cannot be learned from until others come.
    left_out : set of int
        Classes that came after the training began.
    """

    cases: tuple[Case, ...]
    pool: Pool
    waiting: list[LabelBox] = field(default_factory=list)
    left_out: set[int] = field(default_factory=set)
    _own: bool = False

    def own_labels(self) -> None:
        """Copy the labels of the first case, once: they are about to change."""
        if not self._own:
            first = self.cases[0]
            annotation = replace(first.annotation, labels=first.annotation.labels.copy())
            self.cases = (replace(first, annotation=annotation), *self.cases[1:])
            self._own = True


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
    material.own_labels()
    labels = material.cases[0].annotation.labels
    boxes = [*material.waiting, *boxes]
    before = []
    for region, values in boxes:
        known = np.isin(values, material.pool.class_ids)
        material.left_out |= {int(i) for i in np.unique(values[~known]) if i != UNLABELED}
        put = np.where(known, values, UNLABELED)
        if not np.array_equal(put, labels[region]):
            before.append((region, labels[region].copy()))
            labels[region] = put
    material.waiting = []
    if before:
        # From the seed and the step, as everything random, so that it is repeatable.
        random = np.random.default_rng((config.seed, step))
        try:
            regions = [region for region, _ in before]
            material.pool = relabel(material.pool, labels, regions, config.held_out, random)
        except InputError as error:
            for region, values in reversed(before):
                labels[region] = values
            material.waiting = boxes
            return False, f"{error}; until then, training goes on with what was painted before"
    return bool(before), new_classes_note(sorted(material.left_out))


def fitted(box: LabelBox, case: Case) -> LabelBox:
    """Return a label box with the numbers of its region spelled out.

    Raises
    ------
    InputError
        If there is not one integer for each voxel of a region inside the volume.
    """
    region, values = box
    shape = case.volume.shape
    sides = [slice(*side.indices(n)) for side, n in zip(region, shape, strict=True)]
    inside: Region = (sides[0], sides[1], sides[2])
    size = tuple(side.stop - side.start for side in inside)
    if values.shape != size or not np.issubdtype(values.dtype, np.integer):
        place = ", ".join(f"{side.start}:{side.stop}" for side in region)
        raise InputError(
            f"{case.volume.name}: new labels of shape {values.shape} and type {values.dtype} for "
            f"the region ({place}) of a volume of {shape} are left out; send one integer for "
            "each of its voxels"
        )
    return inside, values


def new_classes_note(ids: Sequence[int]) -> str:
    """Say that classes came too late for a network, which has an output for each it began with."""
    if not ids:
        return ""
    listed = ", ".join(str(i) for i in ids)
    which = f"class {listed} is" if len(ids) == 1 else f"classes {listed} are"
    return f"{which} new: the next training learns it"
