"""A dense OME-Zarr that is written region by region, and goes on where it was killed.

Its chunks are what one region writes, and a chunk on disk is finished: nothing else has to
be kept. Until all are there, it lies beside its place under a hidden name.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from napari_volseg.data import ome_zarr
from napari_volseg.data.files import contents_of, writing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import DTypeLike

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.data.ome_zarr import Share
    from napari_volseg.data.tiles import Region
    from napari_volseg.data.volume import Volume

_BELONGS = "belongs_to"


@dataclass(frozen=True, eq=False)
class Unfinished:
    """An OME-Zarr of which some regions are still to be written.

    Attributes
    ----------
    path : Path
        Where it will be.
    array : zarr array (Z, Y, X), or (C, Z, Y, X) for several channels
        To write regions to.
    """

    path: Path
    array: Any = field(repr=False)

    def has(self, region: Region) -> bool:
        """Whether a region is written, all of it: labels are never 0, so no chunk is left out."""
        *_, a, b, c = self.array.chunks
        sides = [
            range(side.start // size, -(-side.stop // size))
            for side, size in zip(region, (a, b, c), strict=True)
        ]
        channels = [range(n) for n in self.array.shape[:-3]]
        folder = _hidden(self.path) / "0"
        keys = map(self.array.metadata.encode_chunk_key, product(*channels, *sides))
        return all((folder / key).is_file() for key in keys)


def begin(
    path: Path,
    volume: Volume,
    dtype: DTypeLike,
    chunks: Sequence[int],
    belongs_to: str,
    *,
    classes: Sequence[LabelClass] = (),
    channel_names: Sequence[str] = (),
) -> Unfinished:
    """Open what is to be written, with the regions that an earlier attempt finished.

    Parameters
    ----------
    path : Path
        Of an OME-Zarr, or of labels inside one.
    volume : Volume
        Gives the shape and the geometry.
    chunks : (z, y, x)
        Voxels that are written at once.
    belongs_to : str
        What an earlier attempt must have been given too; what others left is removed.
    classes : sequence of LabelClass
        For labels.
    channel_names : sequence of str
        For an image of so many channels.

    Raises
    ------
    InputError
        If the place cannot be written to.
    """
    shape = (max(1, len(channel_names)), *volume.shape)
    contents = replace(
        contents_of(volume),
        image=np.broadcast_to(np.zeros((), dtype), shape),
        classes=tuple(classes),
        channel_names=tuple(channel_names),
    )
    with writing(path, contents):
        hidden = _hidden(path)
        if hidden.is_dir():
            group = zarr.open_group(hidden, mode="r+")
            if group.attrs.get(_BELONGS) == belongs_to:
                return Unfinished(path, group["0"])
            shutil.rmtree(hidden)
        array = ome_zarr.create(hidden, contents, chunks)
        zarr.open_group(hidden, mode="r+").attrs[_BELONGS] = belongs_to
        return Unfinished(path, array)


def reopen(path: Path) -> Unfinished:
    """Open what another process has begun."""
    return Unfinished(path, zarr.open_group(_hidden(path), mode="r+")["0"])


def finish(unfinished: Unfinished, share: Share = ome_zarr.do_all) -> None:
    """Move what is complete to its place; labels get coarser levels.

    Where this is interrupted, it can be done again.

    Parameters
    ----------
    share : callable
        Does the work on the levels; see ``ome_zarr.add_levels``.
    """
    path, hidden = unfinished.path, _hidden(unfinished.path)
    group = zarr.open_group(hidden, mode="r+")
    if ome_zarr.holds_labels(group):
        ome_zarr.add_levels(hidden, share)
    # Not before: without it, all that is written would be taken for another prediction's.
    del zarr.open_group(hidden, mode="r+").attrs[_BELONGS]
    if path.exists():
        shutil.rmtree(path)
    hidden.rename(path)
    if ome_zarr.is_label(path):
        ome_zarr.list_label(path)


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.unfinished")
