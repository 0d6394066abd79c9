"""Labels that are proposed, not painted: their layer, and how it looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels

from napari_volseg.data.annotation import UNLABELED
from napari_volseg.data.labeled import unlabeled_like
from napari_volseg.widgets.layers import PROPOSALS, classes_of, geometry_of, note, set_classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_volseg.data.tiles import Region

OPACITY = 0.5

HATCH = 4
"""Voxels from one stripe of a hatching to the next."""


def new_proposals(annotation: Labels) -> Labels:
    """Make an empty overlay for labels proposed to an annotation; it shows ``hatched`` ones."""
    layer = Labels(
        unlabeled_like(annotation.data, annotation.data.dtype),
        name="proposals",
        opacity=OPACITY,
        **geometry_of(annotation),
    )
    note(layer, role=PROPOSALS)
    layer.editable = False
    set_classes(layer, classes_of(annotation))
    return layer


def hatched(labels: NDArray[np.integer], region: Region) -> NDArray[np.integer]:
    """Return the labels of a region in stripes, aslant in slices of every orientation.

    napari has no hatching; in stripes, what is only proposed looks like neither paint nor
    prediction, and the image is seen between them.
    """
    z, y, x = np.ogrid[region]
    return np.where((z + y + x) % HATCH < HATCH // 2, labels, UNLABELED)
