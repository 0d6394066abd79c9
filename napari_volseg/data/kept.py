"""Objects that a user has reviewed, cut out: they outlast the mask that they were found in."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.history import Act, make_act, unpack
from napari_volseg.data.parts import labeled_pieces, memory_of, put_where
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.data.tiles import box_shape, box_size, relative, whole_region

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import DTypeLike, NDArray

    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.tiles import Region

LARGE_BOX = 256**3
"""Voxels of a box above which an object of a large volume is kept in blocks."""


@dataclass(frozen=True, eq=False)
class KeptObject:
    """An object, whatever becomes of the mask that it was found in.

    Attributes
    ----------
    class_id : int
    state : str
        "accepted", "rejected" or "corrected"; in an act also "unreviewed".
    box : region
    member : bool, of the box's shape; numpy or ``SparseLabels``
        At least one voxel.
    """

    class_id: int
    state: str
    box: Region
    member: AnyLabels = field(repr=False)

    @cached_property
    def voxels(self) -> int:
        """How many voxels it has."""
        return sum(int(np.count_nonzero(inside)) for _, inside in self.pieces())

    @property
    def size_bytes(self) -> int:
        """About how much memory its voxels take."""
        return memory_of(self.member)

    def pieces(self) -> Iterator[tuple[Region, NDArray[np.bool_]]]:
        """Yield boxes of the volume that hold all of it, and where in them it is."""
        return labeled_pieces(self.box, self.member)

    @cached_property
    def act(self) -> Act:
        """The object, compressed, as the act of this name that would paint it."""
        dtype = np.min_scalar_type(self.class_id)
        values = unlabeled_box(self.box, dtype, isinstance(self.member, SparseLabels))
        nothing = values.copy()
        put_where(values, [(whole_region(values.shape), self.member, self.class_id)])
        return make_act(self.state, self.box, values, nothing)


def kept_by(act: Act) -> KeptObject:
    """Return the object that ``KeptObject.act`` gave this act."""
    box = act.box
    if box is None:
        raise ValueError(f"{act} holds no object")
    class_id, member = 0, unlabeled_box(box, bool, box_size(box) > LARGE_BOX)
    for patch in act.patches:
        values = unpack(patch, act.dtype)
        class_id = max(class_id, int(values.max()))
        member[relative(patch.box, box)] = values > 0
    kept = KeptObject(class_id, act.name, box, member)
    # Compressed anew, a large one might be cut elsewhere, and not be known as the same.
    vars(kept)["act"] = act
    return kept


def unlabeled_box(box: Region, dtype: DTypeLike, in_blocks: bool) -> AnyLabels:
    """Return labels of a box's shape, all 0: an array, or ``SparseLabels``."""
    shape = box_shape(box)
    return SparseLabels(shape, dtype) if in_blocks else np.zeros(shape, dtype)
