"""What labeled voxels that were not trained on tell of a network, beside one mean."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Evidence:
    """Held-out IoU by slice, by distance from paint, and by orientation.

    Each IoU is a mean over foreground classes, of which the figures that are to be compared
    (near and far, or the views) share the same as far as they can. None: cannot be told,
    because too few voxels of any such class are held out there.

    Held-out voxels come in blocks, around which the rest of a painted slice is trained on.
    They tell of painted slices, and of places no farther from paint than the middles of the
    blocks. Those middles are as far as half of the volume where there are many slices. Where
    there are few, none is, and what lies between slices is not known (``far`` is None); where
    some are, ``far`` is of places that are barely far, and an upper bound rather than a mean
    for all that is ``unchecked``.

    Attributes
    ----------
    slices : int
        Painted slices with enough held-out voxels to count.
    interval : float or None
        The mean over all held-out voxels is known to plus or minus this: half of its 95%
        interval over painted slices. None for fewer than two.
    near, far : float or None
        Of voxels no farther, and farther, than ``reach`` from every voxel that was trained on.
    reach : float
        Half of the volume is farther than this from every voxel that was trained on; in the
        unit of the spacing. Of many volumes, the least.
    unchecked : float
        Part of the volume, 0 to 1, that is farther from every voxel that was trained on than all
        held-out foreground voxels but a few: nothing tells of it. Of many volumes, the mean.
    views : tuple of float or None
        Of xy, xz and yz slices.
    """

    slices: int = 0
    interval: float | None = None
    near: float | None = None
    far: float | None = None
    reach: float = 0.0
    unchecked: float = 1.0
    views: tuple[float | None, ...] = (None, None, None)
