"""The objects of a prediction, found in a thread: with their sizes and what was said before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_volseg.review.kept import finding_around, put_all_kept
from napari_volseg.review.queue import measure_objects

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from napari_volseg.data.kept import KeptObject
    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.volume import Volume
    from napari_volseg.review.objects import Objects
    from napari_volseg.review.queue import MeasuredObject


@dataclass(frozen=True, eq=False)
class FoundObjects:
    """The objects of a mask, what is known of each, and what was said before (``FoundAround``).

    Attributes
    ----------
    mask : uint8 or uint16 (Z, Y, X), numpy or ``SparseLabels``
        With the objects of which something was said before in it.
    """

    objects: Objects
    mask: AnyLabels
    measured: tuple[MeasuredObject, ...]
    kept: Mapping[int, KeptObject]
    unfit: tuple[KeptObject, ...]


def find_objects_of(
    labels: AnyLabels,
    kept: Sequence[KeptObject],
    volume: Volume,
    doubt: AnyLabels | None,
) -> Generator[float, None, FoundObjects]:
    """Find the objects of a mask of a volume, around those that are kept, and measure them.

    Yields how much is done, 0 to 1.

    Parameters
    ----------
    labels : uint8 or uint16 (Z, Y, X), numpy or ``SparseLabels``
        The mask; objects that are kept are put into it.
    """
    around = yield from finding_around(labels, kept)
    put_all_kept(labels, around.kept.values())
    objects = around.objects
    numbers = [found.id for found in objects.found]
    measured = measure_objects(objects, numbers, volume.spacing, doubt)
    return FoundObjects(objects, labels, tuple(measured), around.kept, around.unfit)
