"""The objects of a prediction, found in a thread: with their sizes and what was said before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_volseg.review.kept import find_objects_around
from napari_volseg.review.queue import measure_object

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_volseg.data.kept import KeptObject
    from napari_volseg.data.volume import Volume
    from napari_volseg.review.objects import Objects
    from napari_volseg.review.queue import MeasuredObject


@dataclass(frozen=True, eq=False)
class FoundObjects:
    """The objects of a mask, what is known of each, and what was said before (``FoundAround``)."""

    objects: Objects
    measured: tuple[MeasuredObject, ...]
    kept: Mapping[int, KeptObject]
    unfit: tuple[KeptObject, ...]


def find_objects_of(
    labels: NDArray[Any],
    kept: Sequence[KeptObject],
    volume: Volume,
    doubt: NDArray[np.uint8] | None,
) -> FoundObjects:
    """Find the objects of a mask of a volume, around those that are kept, and measure them."""
    around = find_objects_around(labels, kept)
    objects = around.objects
    measured = [measure_object(objects, o, volume.spacing, doubt) for o in objects.found]
    return FoundObjects(objects, tuple(measured), around.kept, around.unfit)
