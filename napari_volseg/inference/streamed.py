"""Prediction of volumes larger than memory: region by region into chunks on disk.

A region is finished when its labels are on disk, so a prediction that was killed goes on
with the others, and any number of processes can share the regions (``distributed``).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data.annotation import count_labels
from napari_volseg.inference.memory import give_back_freed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_volseg.data.tiles import Tile
    from napari_volseg.data.unfinished import Unfinished
    from napari_volseg.inference.predict import PredictedRegion, Predictor

Values = Callable[["PredictedRegion"], "NDArray[Any]"]
Outputs = Sequence[tuple[Any, Values]]
"""Arrays, in memory or on disk, and what of a finished region goes there; the labels are the
first."""

LONGEST_CHUNK = 256
"""Edge of a chunk where a region is a whole axis, in voxels."""


def chunk_shape(predictor: Predictor) -> tuple[int, int, int]:
    """Return the chunks (z, y, x) of which every region fills whole ones, its own."""
    first = predictor.tiles[0].write
    whole = predictor.volume.shape
    z, y, x = (
        min(side.stop, LONGEST_CHUNK) if side.stop == n else side.stop
        for side, n in zip(first, whole, strict=True)
    )
    return z, y, x


def identify(predictor: Predictor) -> str:
    """Identify a prediction: equal for the same network and an image of the same gray values."""
    checkpoint, volume = predictor.checkpoint, predictor.volume
    digest = hashlib.sha256()
    for name, tensor in sorted(checkpoint.weights.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    what = (checkpoint.config, checkpoint.belief, checkpoint.classes, predictor.flips)
    digest.update(repr((what, volume.image.shape, predictor.intensity)).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Written:
    """Regions that are on disk.

    Attributes
    ----------
    regions : int
        How many.
    there : int
        How many of them an earlier attempt had written.
    voxels : Counter
        Of each label in them.
    """

    regions: int
    there: int
    voxels: Counter[int]


def write_missing(
    predictor: Predictor, outputs: Sequence[tuple[Unfinished, Values]], tiles: Sequence[Tile]
) -> Iterator[Written]:
    """Predict and write those of some tiles whose regions are not on disk yet.

    Yields once those that are there are counted, and after each of the others.
    """
    (labels, _), *_ = outputs
    missing, voxels = [], Counter[int]()
    for tile in tiles:
        if labels.has(tile.write):
            voxels.update(count_labels(np.asarray(labels.array[tile.write])))
        else:
            missing.append(tile)
    there = len(tiles) - len(missing)
    yield Written(there, there, voxels)
    arrays = [(output.array, values) for output, values in outputs]
    for piece in write_tiles(predictor, arrays, missing):
        yield Written(1, 0, Counter(count_labels(piece.labels)))


def write_tiles(
    predictor: Predictor, outputs: Outputs, tiles: Sequence[Tile]
) -> Iterator[PredictedRegion]:
    """Predict the regions of some tiles; yields each once it is written."""
    for piece in predictor.predict(tiles):
        # The labels come last: with them, a region counts as finished.
        for array, values in reversed(outputs):
            array[(..., *piece.region)] = values(piece)
        give_back_freed()
        yield piece
