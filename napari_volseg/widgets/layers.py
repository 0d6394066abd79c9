"""napari's layers as volumes, annotations and predictions, and the view on them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import DirectLabelColormap
from napari.utils.transforms import CompositeAffine

from napari_volseg.data.annotation import BACKGROUND, UNLABELED, LabelClass, default_classes
from napari_volseg.data.errors import InputError
from napari_volseg.data.history import History
from napari_volseg.data.tiles import start_of
from napari_volseg.data.volume import Volume
from napari_volseg.inference.large import labels_for
from napari_volseg.widgets.geometry import volume_from_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari.components import ViewerModel
    from numpy.typing import ArrayLike, NDArray

    from napari_volseg.data.tiles import Region

METADATA = "napari_volseg"
"""Key of ``layer.metadata`` under which all that is ours is kept, as a mapping."""

ANNOTATION, PREDICTION, PREVIEW = "annotation", "prediction", "preview"
PROPOSALS, UNCERTAINTY = "proposals", "uncertainty"
"""Roles that a layer is noted to have."""

MAX_CLASSES = 32
ANNOTATION_OPACITY = 0.6
PREDICTION_OPACITY = 0.4

SEEN_PIXELS = 40, 500
"""What is smaller or larger on the screen is hard to see as a whole."""

GOOD_PIXELS = 150


def noted(layer: Layer) -> Mapping[str, Any]:
    """Return what is ours in a layer's metadata."""
    ours: Mapping[str, Any] = layer.metadata.get(METADATA, {})
    return ours


def note(layer: Layer, **values: Any) -> None:
    """Keep values in a layer's metadata, beside what is there."""
    layer.metadata[METADATA] = {**noted(layer), **values}


def volume_of(layer: Layer) -> Volume:
    """Return the volume that an image layer shows.

    Layers from our reader know their whole volume, with all its channels; any other 3D
    image becomes a volume of one channel with the layer's geometry. No voxel is copied.

    Raises
    ------
    InputError
        For a layer that is not a 3D gray-value image; the message says what to do.
    """
    image = layer.data[0] if layer.multiscale else layer.data
    if layer.rgb:
        raise InputError(
            f"{layer.name} is an RGB image; right-click it in the layer list, choose "
            "Split RGB, and pick the channel that shows your structures"
        )
    if image.ndim == 2:
        raise InputError(f"{layer.name} is a 2D image; open a 3D stack (z, y, x)")
    if image.ndim != 3:
        raise InputError(
            f"{layer.name} has {image.ndim} axes (time or channels); right-click it in the "
            "layer list and choose Split Stack, then pick one 3D image"
        )
    known = noted(layer).get("volume")
    if isinstance(known, Volume) and known.shape == tuple(image.shape):
        return known
    return volume_from_layer(image[None], geometry_of(layer) | {"name": layer.name})


def geometry_of(layer: Layer) -> dict[str, Any]:
    """Return all that places a layer in the world, for a layer derived from it."""
    return {
        "scale": layer.scale,
        "translate": layer.translate,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": np.array(layer.affine.affine_matrix),
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def new_annotation(image: Image, volume: Volume) -> Labels:
    """Make an empty annotation layer with the geometry of an image layer."""
    layer = Labels(
        labels_for(volume.shape, np.uint8),
        name=f"{volume.name} annotation",
        opacity=ANNOTATION_OPACITY,
        **geometry_of(image),
    )
    note(layer, role=ANNOTATION, volume=volume)
    set_classes(layer, default_classes())
    return layer


def new_prediction(image: Image, volume: Volume, classes: Sequence[LabelClass]) -> Labels:
    """Make an empty overlay for a prediction: background transparent, not editable."""
    layer = Labels(
        labels_for(volume.shape, np.uint8),
        name=f"{volume.name} prediction",
        opacity=PREDICTION_OPACITY,
        **geometry_of(image),
    )
    note(layer, role=PREDICTION, volume=volume)
    empty_prediction(layer, classes)
    return layer


def empty_prediction(layer: Labels, classes: Sequence[LabelClass]) -> None:
    """Give a prediction overlay fresh labels, all 0, that can hold these classes."""
    # A new array: the old one may still be on its way to a file.
    layer.data = labels_for(layer.data.shape, np.min_scalar_type(max(c.id for c in classes)))
    layer.editable = False
    note(layer, confidence=None)
    set_classes(layer, classes)


def new_preview(
    image: Image, region: Region, labels: NDArray[np.integer], classes: Sequence[LabelClass]
) -> Labels:
    """Make an overlay for a region of an image layer, which looks like a prediction.

    Parameters
    ----------
    labels : uint8 or uint16 (z, y, x)
        Of the region.
    """
    layer = Labels(
        labels,
        name="live preview",
        opacity=PREDICTION_OPACITY,
        **geometry_of(image) | {"translate": place_of(image, region)},
    )
    note(layer, role=PREVIEW)
    layer.editable = False
    set_classes(layer, classes)
    return layer


def show_region(layer: Labels, image: Image, region: Region, labels: NDArray[np.integer]) -> None:
    """Let a layer that ``new_preview`` made show another region of the image."""
    layer.data = labels
    layer.editable = False
    layer.translate = place_of(image, region)


def place_of(image: Image, region: Region) -> NDArray[np.float64]:
    """Return the translation of a layer that shows a region of an image layer."""
    to_physical = CompositeAffine(
        image.scale, image.translate, rotate=image.rotate, shear=image.shear
    )
    return np.asarray(to_physical(start_of(region)))


def classes_of(layer: Labels) -> tuple[LabelClass, ...]:
    """Return the classes that a labels layer carries, or two default ones."""
    return tuple(noted(layer).get("classes", ())) or default_classes()


def history_of(layer: Labels) -> History:
    """Return what can be undone and redone in a labels layer."""
    history: History = noted(layer).get("history", History())
    return history


def set_classes(layer: Labels, classes: Sequence[LabelClass]) -> None:
    """Give a labels layer its classes: kept in its metadata, shown in their colors.

    The background is transparent in all but the annotation.
    """
    note(layer, classes=tuple(classes))
    dense = noted(layer).get("role") in (PREDICTION, PREVIEW, PROPOSALS)
    layer.colormap = class_colormap(classes, dense=dense)


def class_colormap(classes: Sequence[LabelClass], *, dense: bool) -> DirectLabelColormap:
    """Return the colors of the classes; the background of dense labels is transparent."""
    colors: dict[int | None, str] = {c.id: c.color for c in classes}
    colors |= {None: "white", UNLABELED: "transparent"}
    if dense:
        colors[BACKGROUND] = "transparent"
    return DirectLabelColormap(color_dict=defaultdict(lambda: "white", colors))


def visible_slice(viewer: ViewerModel, layer: Layer) -> tuple[int, int] | None:
    """Return (axis, index) of the slice of a 3D layer on view; None in 3D or outside it."""
    if viewer.dims.ndisplay != 2:
        return None
    first = viewer.dims.ndim - 3
    axis = next(a for a in range(3) if a + first not in viewer.dims.displayed)
    index = int(np.round(_to_data(viewer, layer)[axis]))
    return (axis, index) if 0 <= index < layer.data.shape[axis] else None


def watch_slice(viewer: ViewerModel, act: Callable[..., None]) -> Callable[[], None]:
    """Call something whenever another slice may be on view; return what ends that."""
    events = viewer.dims.events
    emitters = (events.current_step, events.order, events.ndisplay)
    for emitter in emitters:
        emitter.connect(act)

    def unwatch() -> None:
        for emitter in emitters:
            emitter.disconnect(act)

    return unwatch


def region_on_view(viewer: ViewerModel, layer: Layer, region: Region) -> bool:
    """Whether a region of a layer meets the slice on view; in 3D all of it is on view."""
    if viewer.dims.ndisplay == 3:
        return True
    seen = visible_slice(viewer, layer)
    return seen is not None and region[seen[0]].start <= seen[1] < region[seen[0]].stop


def slice_on_view(viewer: ViewerModel, layer: Layer) -> tuple[int, int]:
    """Return what ``visible_slice`` does.

    Raises
    ------
    InputError
        If no slice is on view.
    """
    seen = visible_slice(viewer, layer)
    if seen is None:
        raise InputError("no slice is on view; turn to xy, xz or yz first")
    return seen


def turn(viewer: ViewerModel, axis: int) -> None:
    """Show slices across an axis of the volume (0, 1, 2 is z, y, x) at the same point."""
    first = viewer.dims.ndim - 3
    others = [a for a in range(3) if a != axis]
    order = (*range(first), first + axis, *(first + a for a in others))
    viewer.dims.ndisplay = 2
    if viewer.dims.order != order:
        viewer.dims.order = order


def show_slice(viewer: ViewerModel, layer: Layer, axis: int, index: int) -> None:
    """Show one slice of a layer, turning the view to its axis."""
    turn(viewer, axis)
    point = _to_data(viewer, layer)
    point[axis] = index
    first = viewer.dims.ndim - 3
    world = np.asarray(layer.data_to_world(point)) * _units_per_layer_unit(viewer, layer)
    viewer.dims.set_point(list(range(first, first + 3)), world.tolist())


def center_on(viewer: ViewerModel, layer: Layer, box: Region) -> None:
    """Move the camera, not the slice, to a box of a layer, and zoom if it is hard to see."""
    ends = [[side.start - 0.5 for side in box], [side.stop - 0.5 for side in box]]
    corners = np.array([layer.data_to_world(end) for end in ends])
    corners *= _units_per_layer_unit(viewer, layer)
    first = viewer.dims.ndim - 3
    shown = corners[:, [axis - first for axis in viewer.dims.displayed]]
    # Before napari 0.9, the camera was the viewer's own.
    camera = getattr(viewer, "scene", viewer).camera
    camera.center = (*camera.center[: 3 - shown.shape[1]], *shown.mean(0).tolist())
    width = float(np.abs(shown[1] - shown[0]).max())
    if width * camera.zoom < SEEN_PIXELS[0]:
        camera.zoom = GOOD_PIXELS / width
    elif width * camera.zoom > SEEN_PIXELS[1]:
        # No farther: what runs through the whole volume would be a stamp.
        camera.zoom = SEEN_PIXELS[1] / width


def middle_of_view(viewer: ViewerModel, layer: Layer) -> NDArray[np.float64]:
    """Return what the middle of the canvas shows, in the layer's voxels; of a slice on view."""
    world = np.array(viewer.dims.point)
    # Before napari 0.9, the camera was the viewer's own.
    camera = getattr(viewer, "scene", viewer).camera
    world[list(viewer.dims.displayed)] = camera.center[-len(viewer.dims.displayed) :]
    return _to_data(viewer, layer, world)


def _to_data(
    viewer: ViewerModel, layer: Layer, point: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return a point of the world, by default the viewer's, in the layer's voxels."""
    world = np.asarray(viewer.dims.point if point is None else point)[-3:]
    return np.asarray(layer.world_to_data(world / _units_per_layer_unit(viewer, layer)))


def _units_per_layer_unit(viewer: ViewerModel, layer: Layer) -> NDArray[np.float64]:
    # The viewer's world has one unit for all layers; a layer keeps its own.
    units = getattr(viewer.dims, "units", None)
    if units is None:
        return np.ones(3)
    pairs = zip(layer.units, units[-3:], strict=True)
    return np.array([1.0 if a == b else float((1 * a).to(b).magnitude) for a, b in pairs])
