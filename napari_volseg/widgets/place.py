"""Where in the volume something was done, brought into view and said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.annotation import VIEW_OF_AXIS
from napari_volseg.data.tiles import box_shape
from napari_volseg.widgets.layers import show_slice, visible_slice

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

    from napari_volseg.data.tiles import Region


def show_box(viewer: ViewerModel, layer: Labels, box: Region) -> str:
    """Show a slice that goes through a box of a layer, unless the one on view does.

    Returns
    -------
    str
        Where the box is, as "xy slice 31".
    """
    seen = visible_slice(viewer, layer)
    sides = box_shape(box)
    axis = int(np.argmin(sides))
    # In what is as thin both ways, the view stays.
    if seen and (sides[seen[0]] == 1 or sides[axis] > 1):
        axis = seen[0]
    if seen and not box[seen[0]].start <= seen[1] < box[seen[0]].stop:
        show_slice(viewer, layer, axis, box[axis].start + sides[axis] // 2)
    if sides == tuple(layer.data.shape):
        return "the whole volume"
    view, first, last = VIEW_OF_AXIS[axis], box[axis].start, box[axis].stop - 1
    return f"{view} slice {first}" if first == last else f"{view} slices {first} to {last}"
