"""A cube of the image around each object of a mask, as an architecture for objects sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from napari_volseg.data.errors import InputError
from napari_volseg.data.intensity import measure_intensity, read_standardized
from napari_volseg.data.tiles import box_shape, meet, relative, whole_region
from napari_volseg.review.objects import check_shape
from napari_volseg.review.room import check_room
from napari_volseg.sparse.crops import Examples
from napari_volseg.sparse.whole import resample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.data.intensity import Intensity
    from napari_volseg.data.tiles import Region
    from napari_volseg.data.volume import Volume
    from napari_volseg.review.objects import Objects
    from napari_volseg.sparse.object_config import ObjectConfig


def crop_object(
    volume: Volume,
    objects: Objects,
    number: int,
    config: ObjectConfig,
    side: int,
    intensity: Intensity,
) -> Tensor:
    """Cut a cube in space around an object and resample it.

    The cube lies around the middle of the object's bounding box, up to half a voxel off.
    Where it reaches beyond the volume, the image is mirrored and the mask is 0. It is
    read as a whole: memory grows with the object.

    Parameters
    ----------
    number : int
        Id of the object.
    side : int
        Voxels along each edge of the result.
    intensity : Intensity
        What standardizes the volume.

    Raises
    ------
    InputError
        If what is read of a large volume does not fit into the memory.

    Returns
    -------
    float32 (C, side, side, side)
        Standardized gray values, then the object's mask, as far as ``config.sees`` them.
    """
    box = objects.get(number).box
    lengths = [(r.stop - r.start) * s for r, s in zip(box, volume.spacing, strict=True)]
    edge = config.extent or config.context * max(lengths)
    sides = [max(1, round(edge / s)) for s in volume.spacing]
    starts = [(r.start + r.stop - n) // 2 for r, n in zip(box, sides, strict=True)]
    z, y, x = (slice(start, start + n) for start, n in zip(starts, sides, strict=True))
    inside = meet((z, y, x), whole_region(objects.labels.shape))
    check_room(objects.labels, inside, f"reject object {number}, or split it, then sort the others")
    channels = []
    if config.sees != "mask":
        channels.append(read_standardized(volume, (z, y, x), intensity))
    if config.sees != "image":
        channels.append(object_mask(objects, number, (z, y, x))[None])
    block = torch.from_numpy(np.concatenate(channels))
    return resample(block[None], (side,) * 3)[0]


def object_mask(objects: Objects, number: int, region: Region) -> NDArray[np.float32]:
    """Return where in a region an object is: 1 in it, 0 around it and beyond the volume."""
    mask = np.zeros(box_shape(region), np.float32)
    inside = meet(region, whole_region(objects.labels.shape))
    mask[relative(inside, region)] = objects.labels[inside] == number
    return mask


def gather_examples(
    volume: Volume,
    objects: Objects,
    given: Mapping[int, int],
    classes: Sequence[LabelClass],
    config: ObjectConfig,
    side: int,
) -> Examples:
    """Cut out the objects whose class is known.

    Parameters
    ----------
    given : mapping of object id to class id
    classes : sequence of LabelClass
        Those that can be given.
    side : int
        Voxels along each edge of a crop.

    Raises
    ------
    InputError
        For objects or classes that there are not, for fewer than two classes, or if volume
        and objects do not fit.
    """
    check_shape(volume, objects)
    ids = [c.id for c in classes]
    for number, class_id in given.items():
        if class_id not in ids:
            raise InputError(f"object {number} is of class {class_id}; the classes are {ids}")
    intensity = measure_intensity(volume)
    crops = [crop_object(volume, objects, n, config, side, intensity) for n in given]
    return Examples(
        crops=torch.stack(crops) if crops else torch.empty(0),
        target=torch.tensor([ids.index(class_id) for class_id in given.values()], dtype=torch.long),
        classes=tuple(classes),
        gray_channels=0 if config.sees == "mask" else volume.channels,
        spacing=volume.spacing,
        unit=volume.unit,
        intensity=intensity,
    )
