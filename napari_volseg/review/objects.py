"""Objects of a mask: its connected components, and a cube of the image around each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from napari_volseg.data.annotation import BACKGROUND
from napari_volseg.data.errors import InputError
from napari_volseg.data.intensity import measure_intensity, standardize
from napari_volseg.data.tiles import Region, meet, read_block, relative
from napari_volseg.sparse.crops import Examples
from napari_volseg.sparse.whole import resample

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.data.intensity import Intensity
    from napari_volseg.data.volume import Volume
    from napari_volseg.sparse.object_config import ObjectConfig

SMALLEST = 8
"""Voxels below which a component is a speck, not an object."""

NEIGHBORS = np.ones((3, 3, 3), dtype=bool)
"""Voxels that touch, by a face, an edge or a corner, belong together."""


@dataclass(frozen=True)
class FoundObject:
    """One connected component.

    Attributes
    ----------
    id : int
        From 1, its value in ``Objects.labels``.
    mask_label : int
        The value of the mask there.
    voxels : int
    center : (z, y, x)
        Center of mass, in voxels.
    box : region
        The smallest around it.
    """

    id: int
    mask_label: int
    voxels: int
    center: tuple[float, float, float]
    box: Region


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of a mask.

    Attributes
    ----------
    labels : int32 (Z, Y, X)
        Object of each voxel, 0 for none.
    found : tuple of FoundObject
        By id, which goes from 1 to their number.
    """

    labels: NDArray[np.int32] = field(repr=False)
    found: tuple[FoundObject, ...]

    def get(self, number: int) -> FoundObject:
        """Return the object of that id.

        Raises
        ------
        InputError
            If there is none.
        """
        if not 1 <= number <= len(self.found):
            raise InputError(f"no object {number}; they go from 1 to {len(self.found)}")
        return self.found[number - 1]

    def at(self, voxel: Sequence[int]) -> int:
        """Return the object at a voxel (z, y, x).

        Raises
        ------
        InputError
            If the voxel is outside the mask, or holds no object.
        """
        inside = all(0 <= v < n for v, n in zip(voxel, self.labels.shape, strict=True))
        if not inside or not (found := int(self.labels[tuple(voxel)])):
            raise InputError(
                f"no object at voxel {tuple(voxel)} (z, y, x) of a mask of shape "
                f"{self.labels.shape}; point at a voxel inside an object"
            )
        return found


def find_objects(mask: NDArray[np.integer], *, smallest: int = SMALLEST) -> Objects:
    """Find the connected components of each class of a mask.

    Touching voxels of different values belong to different objects, so that the labels
    of instances give those instances.

    Parameters
    ----------
    mask : uint8 or uint16 (Z, Y, X)
        0 (unlabeled) and 1 (background) hold no objects.
    smallest : int
        Components of fewer voxels are left out.

    Returns
    -------
    Objects
        Numbered value by value of the mask, each value's in the order of their first voxels.
    """
    labels = np.zeros(mask.shape, np.int32)
    found: list[FoundObject] = []
    for value, outer in enumerate(ndimage.find_objects(mask), start=1):
        if outer is None or value == BACKGROUND:
            continue
        parts, _ = ndimage.label(mask[outer] == value, NEIGHBORS)
        for part, inner in enumerate(ndimage.find_objects(parts), start=1):
            member = parts[inner] == part
            voxels = int(member.sum())
            if voxels < smallest:
                continue
            z, y, x = (
                slice(o.start + i.start, o.start + i.stop)
                for o, i in zip(outer, inner, strict=True)
            )
            labels[z, y, x][member] = len(found) + 1
            mean = np.argwhere(member).mean(0)
            center = (z.start + float(mean[0]), y.start + float(mean[1]), x.start + float(mean[2]))
            found.append(FoundObject(len(found) + 1, value, voxels, center, (z, y, x)))
    return Objects(labels, tuple(found))


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
    channels = []
    if config.sees != "mask":
        channels.append(standardize(read_block(volume, (z, y, x)), intensity))
    if config.sees != "image":
        channels.append(object_mask(objects, number, (z, y, x))[None])
    block = torch.from_numpy(np.concatenate(channels))
    return resample(block[None], (side,) * 3)[0]


def object_mask(objects: Objects, number: int, region: Region) -> NDArray[np.float32]:
    """Return where in a region an object is: 1 in it, 0 around it and beyond the volume."""
    mask = np.zeros([r.stop - r.start for r in region], np.float32)
    z, y, x = (slice(0, n) for n in objects.labels.shape)
    inside = meet(region, (z, y, x))
    mask[relative(inside, region)] = objects.labels[inside] == number
    return mask


def check_shape(volume: Volume, objects: Objects) -> None:
    """Refuse objects of another volume.

    Raises
    ------
    InputError
        If the shapes differ.
    """
    if objects.labels.shape != volume.shape:
        raise InputError(
            f"{volume.name}: the mask has shape {objects.labels.shape}, the image {volume.shape}; "
            "give a mask of this image"
        )


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
