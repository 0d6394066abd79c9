"""What is looked at as a whole must fit into the memory, also of a large volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_volseg.data.errors import InputError
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.data.tiles import box_shape, box_size
from napari_volseg.inference.cgroup import free_bytes

if TYPE_CHECKING:
    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.tiles import Region

BYTES_EACH = 32
"""About what each voxel takes of a box that is looked at as a whole."""


def check_room(labels: AnyLabels, box: Region, advice: str) -> None:
    """Refuse to look at a box of labels as a whole; of an array, each fits.

    Parameters
    ----------
    advice : str
        What to do instead; ends the error's message.

    Raises
    ------
    InputError
        If it would take more memory than is free.
    """
    needed = BYTES_EACH * box_size(box)
    if isinstance(labels, SparseLabels) and needed > free_bytes():
        raise InputError(
            f"{'x'.join(map(str, box_shape(box)))} voxels would be looked at as a whole, which "
            f"takes {needed / 1e9:.2g} GB, more than is free; {advice}"
        )
