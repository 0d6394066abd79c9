"""Whether a layer can be what it was chosen to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.errors import InputError
from napari_volseg.data.sparse_labels import SparseLabels

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_volseg.data.volume import Volume


def check_annotation(layer: Labels, volume: Volume) -> None:
    """Refuse a labels layer that cannot be the annotation of a volume.

    Raises
    ------
    InputError
        If its shape, type or storage does not allow it; the message says what to do.
    """
    if layer.multiscale or not isinstance(layer.data, np.ndarray | SparseLabels):
        raise InputError(f"{layer.name} is not held in memory and cannot be painted; press New")
    if tuple(layer.data.shape) != volume.shape:
        raise InputError(
            f"{layer.name} has shape {tuple(layer.data.shape)}, the image {volume.shape}; "
            "choose the labels of this image, or press New"
        )
    if layer.data.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{layer.name} holds {layer.data.dtype} numbers; right-click it in the layer list "
            "and choose Convert data type > uint8"
        )
