"""What the manifest names: napari's reader, its writer of labels, and the sample data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data import phantom, samples
from napari_volseg.data.annotation import (
    Annotation,
    LabelClass,
    count_labels,
    default_classes,
)
from napari_volseg.data.errors import InputError
from napari_volseg.data.files import read_classes, read_volume, write_labels
from napari_volseg.data.labels import as_labels, read_labels
from napari_volseg.data.lazy_array import cached
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.data.volume import Volume
from napari_volseg.inference.large import is_large
from napari_volseg.widgets.geometry import layer_geometry, volume_from_layer
from napari_volseg.widgets.layers import (
    ANNOTATION,
    ANNOTATION_OPACITY,
    METADATA,
    PREDICTION_OPACITY,
    class_colormap,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari_volseg.data.labeled import AnyLabels

LayerTuple = tuple[Any, dict[str, Any], str]

_COLORMAPS = {
    1: ("gray",),
    2: ("green", "magenta"),
    3: ("green", "blue", "magenta"),
    4: ("green", "blue", "magenta", "gray"),
}


def get_reader(path: str | Sequence[str]) -> Callable[[str], list[LayerTuple]] | None:
    """Return the function that reads a path; None for several paths at once."""
    return read_layers if isinstance(path, str) else None


def read_layers(path: str) -> list[LayerTuple]:
    """Open a volume as one image layer per channel, or labels that we wrote as a labels layer.

    Raises
    ------
    InputError
        If the file cannot be opened; the message says why and what to do.
    """
    volume = read_volume(path)
    classes = read_classes(path)
    if not classes:
        return image_layers(volume)
    labels = read_labels(volume.image[0], path, in_blocks=is_large(volume.shape))
    return [labels_layer(Annotation(labels, classes), volume, volume.name)]


def image_layers(volume: Volume) -> list[LayerTuple]:
    """Make an image layer for each channel; the metadata of all of them hold the volume."""
    layers: list[LayerTuple] = []
    for channel, colormap in enumerate(_COLORMAPS[volume.channels]):
        name = volume.name
        if volume.channels > 1:
            named = volume.channel_names or tuple(map(str, range(1, volume.channels + 1)))
            name = f"{volume.name} {named[channel]}"
        attributes = {
            "name": name,
            "colormap": colormap,
            "blending": "translucent_no_depth" if volume.channels == 1 else "additive",
            "metadata": {METADATA: {"volume": volume, "channel": channel}},
        }
        layers.append((cached(volume.image[channel]), attributes | layer_geometry(volume), "image"))
    return layers


def labels_layer(annotation: Annotation, volume: Volume, name: str) -> LayerTuple:
    """Make a labels layer in the colors of the classes.

    The background of dense labels is transparent; sparse labels are noted as an annotation.
    """
    labels = annotation.labels
    sparse = sum(count_labels(labels).values()) < labels.size
    noted = {"volume": volume, "classes": annotation.classes}
    if sparse:
        noted["role"] = ANNOTATION
    attributes = {
        "name": name,
        "opacity": ANNOTATION_OPACITY if sparse else PREDICTION_OPACITY,
        "colormap": class_colormap(annotation.classes, dense=not sparse),
        "features": {
            "index": [c.id for c in annotation.classes],
            "class": [c.name for c in annotation.classes],
        },
        "metadata": {METADATA: noted},
    }
    return annotation.labels, attributes | layer_geometry(volume), "labels"


def write_labels_layer(path: str, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Save a labels layer with the geometry of the volume it belongs to, or else its own.

    Raises
    ------
    InputError
        For labels that are not 3D, negative or above 65535, or a place that cannot be written to.
    """
    where = f"layer {attributes['name']}"
    if attributes.get("multiscale") or data.ndim != 3:
        raise InputError(f"{where} is not one 3D array (z, y, x) and cannot be saved as a mask")
    labels = data if isinstance(data, SparseLabels) else as_labels(np.asarray(data), where)
    noted = attributes["metadata"].get(METADATA, {})
    volume = noted.get("volume")
    if not isinstance(volume, Volume) or volume.shape != labels.shape:
        # Only its shape is looked at.
        image = np.broadcast_to(np.zeros((), labels.dtype), (1, *labels.shape))
        volume = volume_from_layer(image, attributes)
    write_labels(path, labels, volume, _all_classes(noted.get("classes", ()), labels))
    return [path]


def kidney_phantom() -> list[LayerTuple]:
    """Make the kidney phantom: an image layer per stain, and its truth, hidden."""
    return _sample(*phantom.kidney_phantom())


def mni152_head() -> list[LayerTuple]:
    """Read the MNI152 head, and its tissue truth, hidden.

    Raises
    ------
    InputError
        If nilearn is not installed.
    """
    return _sample(*samples.mni152())


def _all_classes(known: Sequence[LabelClass], labels: AnyLabels) -> tuple[LabelClass, ...]:
    """Add classes for ids that were painted without being among the known ones."""
    missing = default_classes(sorted(set(count_labels(labels)) - {c.id for c in known}))
    return tuple(sorted((*known, *missing), key=lambda c: c.id))


def _sample(volume: Volume, truth: Annotation) -> list[LayerTuple]:
    images = image_layers(volume)
    for image, attributes, _ in images:
        attributes["contrast_limits"] = np.percentile(image[::4, ::4, ::4], [0.1, 99.9]).tolist()
    labels, attributes, kind = labels_layer(truth, volume, f"{volume.name} truth")
    return [*images, (labels, attributes | {"visible": False}, kind)]
