"""Objects that a user has reviewed, cut out: they outlast the mask that they were found in."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.history import Act, make_act, unpack
from napari_volseg.data.tiles import relative

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_volseg.data.tiles import Region


@dataclass(frozen=True, eq=False)
class KeptObject:
    """An object, whatever becomes of the mask that it was found in.

    Attributes
    ----------
    class_id : int
    state : str
        "accepted", "rejected" or "corrected"; in an act also "unreviewed".
    box : region
    member : bool, of the box's shape
        At least one voxel.
    """

    class_id: int
    state: str
    box: Region
    member: NDArray[np.bool_] = field(repr=False)

    @cached_property
    def act(self) -> Act:
        """The object, compressed, as the act of this name that would paint it."""
        values = np.where(self.member, np.min_scalar_type(self.class_id).type(self.class_id), 0)
        return make_act(self.state, self.box, values, np.zeros_like(values))


def kept_by(act: Act) -> KeptObject:
    """Return the object that ``KeptObject.act`` gave this act."""
    box = act.box
    if box is None:
        raise ValueError(f"{act} holds no object")
    values = np.zeros([side.stop - side.start for side in box], act.dtype)
    for patch in act.patches:
        values[relative(patch.box, box)] = unpack(patch, act.dtype)
    kept = KeptObject(int(values.max()), act.name, box, values > 0)
    # Compressed anew, a large one might be cut elsewhere, and not be known as the same.
    vars(kept)["act"] = act
    return kept
