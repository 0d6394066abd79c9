"""What the user does to an annotation, slice by slice, under a name for the undo of it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from napari.utils.notifications import show_info, show_warning

from napari_volseg.data.annotation import BACKGROUND, UNLABELED
from napari_volseg.data.errors import InputError
from napari_volseg.data.tiles import box_shape, slice_region
from napari_volseg.review.kept import put_kept
from napari_volseg.widgets.layers import note, noted, slice_on_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from napari.components import ViewerModel
    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_volseg.data.kept import KeptObject
    from napari_volseg.data.tiles import Region


TOOLS = {"paint": "stroke", "erase": "erase", "fill": "fill", "polygon": "polygon"}
"""What the acts of napari's tools are called, by the layer's mode."""


def stroke_name(layer: Labels) -> str:
    """Return what to call a stroke in a layer: what it is done for, or napari's tool."""
    return noted(layer).get("act") or TOOLS.get(str(layer.mode), "edit")


@contextmanager
def acting(layer: Labels, name: str) -> Iterator[None]:
    """Give what is done to a layer meanwhile a name, for the undo of it."""
    note(layer, act=name)
    try:
        yield
    finally:
        note(layer, act="")


def act_on(layer: Labels, name: str, change: Callable[[], int], unchanged: str) -> None:
    """Change labels as an act of that name, or tell the user why not.

    Parameters
    ----------
    change : callable () -> int
        Does it, and returns how many voxels it changed.
    unchanged : str
        What to say if there were none.
    """
    try:
        with acting(layer, name):
            changed = change()
    except InputError as error:
        show_warning(str(error))
        return
    if not changed:
        show_info(unchanged)


def mark_complete(viewer: ViewerModel, layer: Labels, locked: Iterable[KeptObject] = ()) -> int:
    """Fill what is unlabeled in the visible slice with background: one act of napari's undo.

    Parameters
    ----------
    locked : iterable of KeptObject
        Accepted and corrected objects: background would contradict them, they get their class.

    Returns
    -------
    int
        Voxels filled.

    Raises
    ------
    InputError
        If no slice is on view.
    """
    axis, index = slice_on_view(viewer, layer)
    region = slice_region(layer.data.shape, axis, index)
    unlabeled = layer.data[region] == UNLABELED
    if not unlabeled.any():
        return 0
    _show(layer)
    start = np.array(np.unravel_index(unlabeled.argmax(), unlabeled.shape))
    start[axis] = index
    before = (layer.contiguous, layer.n_edit_dimensions, layer.preserve_labels)
    layer.contiguous, layer.n_edit_dimensions, layer.preserve_labels = False, 2, False
    objects = np.zeros(box_shape(region), layer.data.dtype)
    put_kept(objects, region, locked)
    try:
        with layer.block_history():
            layer.fill(start, BACKGROUND)
            set_voxels(layer, region, unlabeled & (objects != UNLABELED), objects)
    finally:
        layer.contiguous, layer.n_edit_dimensions, layer.preserve_labels = before
    return int(np.count_nonzero(unlabeled))


def copy_slice(viewer: ViewerModel, annotation: Labels, prediction: Labels) -> int:
    """Copy the visible slice of a prediction to where the annotation is unlabeled.

    One act of napari's undo.

    Returns
    -------
    int
        Voxels copied.

    Raises
    ------
    InputError
        If no slice is on view.
    """
    region = slice_region(annotation.data.shape, *slice_on_view(viewer, annotation))
    return fill_unlabeled(annotation, region, prediction.data[region])


def fill_unlabeled(layer: Labels, region: Region, labels: NDArray[np.integer]) -> int:
    """Write labels of a region to where a layer is unlabeled: one act of napari's undo.

    Returns
    -------
    int
        Voxels written.
    """
    return set_voxels(layer, region, (layer.data[region] == UNLABELED) & (labels != 0), labels)


def set_voxels(
    layer: Labels, region: Region, where: NDArray[np.bool_], labels: NDArray[np.integer]
) -> int:
    """Write labels of a region to some of its voxels: one act of napari's undo.

    Returns
    -------
    int
        Voxels written.
    """
    found = zip(np.nonzero(where), region, strict=True)
    indices = tuple(positions + side.start for positions, side in found)
    if len(indices[0]):
        _show(layer)
        layer.data_setitem(indices, labels[where].astype(layer.data.dtype))
    return len(indices[0])


def _show(layer: Labels) -> None:
    """Let what is to be written be seen; napari fails to write into what it never drew."""
    layer.visible = True
