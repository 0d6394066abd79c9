"""Dense prediction of a volume, as a stream of finished regions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from napari_volseg.data.errors import InputError
from napari_volseg.data.intensity import Intensity, measure_intensity, windows_of
from napari_volseg.data.tiles import (
    Region,
    Tile,
    TileGrid,
    box_shape,
    center_of,
    meet,
    relative,
    slice_region,
    tile_grid,
    voxels_read,
)
from napari_volseg.inference.device import pick_device
from napari_volseg.inference.memory import most_voxels
from napari_volseg.inference.opinions import class_opinions, opinions_in_passes, tile_around
from napari_volseg.models.belief import Belief, pool_opinions
from napari_volseg.models.registry import AnyArchitecture, Walk, get_architecture

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.volume import Volume
    from napari_volseg.models.checkpoint import Checkpoint

View = tuple[int, int]

LOOK = 0.5
"""Of the time that the regions of a slice take, what the slice alone may take to go before them."""


@dataclass(frozen=True, eq=False)
class PredictedRegion:
    """A finished piece of a prediction.

    Attributes
    ----------
    region : region
        Where it belongs in the volume.
    labels : uint8 or uint16 (z, y, x)
        Class ids, never 0.
    probabilities : float32 (K, z, y, x)
        Of the checkpoint's classes, in their order; calibrated on held-out voxels.
    done, total : int
        Regions finished, and all there are.
    """

    region: Region
    labels: NDArray[np.integer] = field(repr=False)
    probabilities: NDArray[np.float32] = field(repr=False)
    done: int
    total: int


def predict(
    checkpoint: Checkpoint,
    volume: Volume,
    *,
    device: str = "auto",
    near: View | None = None,
    flips: bool = False,
) -> Iterator[PredictedRegion]:
    """Predict a volume region by region.

    Every voxel is yielded exactly once. Closing the generator cancels.

    Parameters
    ----------
    checkpoint : Checkpoint
        The trained network.
    volume : Volume
        With as many channels as the network was trained on.
    device : str
        "auto", "cpu", "cuda", "mps", ...
    near : (axis, index), optional
        A slice that is on view; regions that meet it come first, then by distance.
    flips : bool
        Take the mean over eight mirrored images, which takes eight times as long.

    Raises
    ------
    InputError
        If the volume does not fit the network, or the device cannot be used.
    """
    predictor = prepare(checkpoint, volume, device, flips)
    yield from predictor.predict(order_tiles(predictor.tiles, near))


@dataclass(frozen=True, eq=False)
class Predictor:
    """A network that is ready to predict one volume; see ``prepare``."""

    checkpoint: Checkpoint
    volume: Volume
    intensity: Intensity
    module: nn.Module
    config: object
    device: torch.device
    flips: bool = False

    @property
    def architecture(self) -> AnyArchitecture:
        """What the network is."""
        return get_architecture(self.checkpoint.model)

    @cached_property
    def tiles(self) -> TileGrid:
        """The tiles that cover the volume, in the order in which they lie."""
        shape = self.volume.shape
        return plan_tiles(self.architecture.walk(self.config, shape), shape)

    @cached_property
    def most_voxels(self) -> int:
        """Voxels that a tile may read to fit into the free memory; 0 for no limit."""
        n_classes, extent = len(self.checkpoint.class_ids), self.volume.image.shape
        own = self.architecture, self.config
        return most_voxels(*own, self.tiles.largest, extent, n_classes, self.device)

    def predict(self, tiles: Sequence[Tile]) -> Iterator[PredictedRegion]:
        """Predict the regions of some tiles, in their order."""
        return (piece for piece in self.passes(tiles) if piece is not None)

    def passes(self, tiles: Sequence[Tile]) -> Iterator[PredictedRegion | None]:
        """Predict as ``predict`` does; None comes between the passes that a region takes.

        Closing the generator cancels, and need not wait for all passes of a region.
        """
        return self._passes(tiles, self.most_voxels)

    def _passes(self, tiles: Sequence[Tile], most: int) -> Iterator[PredictedRegion | None]:
        table = label_table(self.checkpoint.class_ids)
        how = self.module, self.config, self.architecture
        image = self.volume, self.intensity
        passes = opinions_in_passes(*how, *image, self.device, tiles, self.flips, most)
        for found in passes:
            if found is None:
                yield None
                continue
            region, opinions, done, total = found
            probabilities = pool_opinions(opinions, self.checkpoint.belief)
            labels = likeliest(probabilities, table)
            yield PredictedRegion(region, labels, probabilities.cpu().numpy(), done, total)

    def look(self, near: View) -> Iterator[PredictedRegion | None]:
        """Predict a slice alone, to be seen before the regions that it crosses are done.

        Yields nothing where it would take more than a fraction of their time. None of what
        is yielded counts as done: the slice is predicted again with its regions. None comes
        as in ``passes``.
        """
        axis, index = near
        shape = self.volume.shape
        walk = self.architecture.walk(self.config, shape)
        on_view = slice_region(shape, axis, index)
        thin = plan_region(walk, shape, on_view)
        if voxels_read(thin) <= LOOK * voxels_read(self.tiles.meeting(on_view)):
            # It waits for no estimate: thin tiles take little.
            for piece in self._passes(thin, 0):
                yield piece and replace(piece, done=0, total=len(self.tiles))


def prepare(
    checkpoint: Checkpoint,
    volume: Volume,
    device: str = "auto",
    flips: bool = False,
    intensity: Intensity | None = None,
) -> Predictor:
    """Make a network ready to predict a volume.

    Parameters
    ----------
    checkpoint, volume, device, flips
        As in ``predict``.
    intensity : Intensity, optional
        What standardizes the volume, if that is known already.

    Raises
    ------
    InputError
        As ``predict``.
    """
    check_channels(checkpoint, volume)
    chosen = pick_device(device)
    module, config = checkpoint.module(chosen)
    known = intensity or intensity_for(checkpoint, volume)
    return Predictor(checkpoint, volume, known, module, config, chosen, flips)


def predict_volume(
    checkpoint: Checkpoint, volume: Volume, *, device: str = "auto", flips: bool = False
) -> NDArray[np.integer]:
    """Predict a whole volume at once: the labels, uint8 or uint16 (Z, Y, X).

    Raises
    ------
    InputError
        As ``predict``.
    """
    table = label_table(checkpoint.class_ids)
    labels = np.zeros(volume.shape, dtype=table.dtype)
    for piece in predict(checkpoint, volume, device=device, flips=flips):
        labels[piece.region] = piece.labels
    return labels


def predict_region(
    module: nn.Module,
    config: object,
    architecture: AnyArchitecture,
    volume: Volume,
    intensity: Intensity,
    device: torch.device,
    class_ids: Sequence[int],
    belief: Belief,
    region: Region,
) -> NDArray[np.integer]:
    """Predict a region, at the cost of no more of the volume than its context.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode, on the device.
    class_ids : sequence of int
        Label of each class index.
    belief : Belief
        What to make of the network's opinions.
    region : region
        Inside the volume.

    Returns
    -------
    uint8 or uint16 (z, y, x)
        Class ids, never 0: those that ``predict_volume`` finds there.
    """
    table = label_table(class_ids)
    labels = np.zeros(box_shape(region), dtype=table.dtype)
    tiles = plan_region(architecture.walk(config, volume.shape), volume.shape, region)
    for piece, opinions, _, _ in class_opinions(
        module, config, architecture, volume, intensity, device, tiles
    ):
        probabilities = pool_opinions(opinions, belief)
        labels[relative(piece, region)] = likeliest(probabilities, table)
    return labels


def check_channels(checkpoint: Checkpoint, volume: Volume) -> None:
    """Refuse a volume that the network cannot read.

    Raises
    ------
    InputError
        If the number of channels differs.
    """
    if volume.channels != checkpoint.channels:
        raise InputError(
            f"{volume.name}: {volume.channels} channels, but the model was trained on "
            f"{checkpoint.channels}; choose an image like the ones it was trained on"
        )


def intensity_for(checkpoint: Checkpoint, volume: Volume) -> Intensity:
    """Return what standardizes a volume for a network: the volume's own, or the training's."""
    if checkpoint.training.get("normalization") == "training":
        return checkpoint.intensity
    return measure_intensity(volume, windows_of(checkpoint.intensity))


def label_table(class_ids: Sequence[int]) -> NDArray[np.integer]:
    """Label of each class index, uint8 where that is enough, else uint16."""
    return np.asarray(class_ids, dtype=np.uint8 if max(class_ids) < 256 else np.uint16)


def likeliest(probabilities: Tensor, table: NDArray[np.integer]) -> NDArray[np.integer]:
    """Label of the likeliest class, of probabilities (K, z, y, x); of equals, the first.

    Class by class, which takes a CPU a fraction of the time of ``argmax`` across them.
    """
    best = probabilities[0]
    index = torch.zeros(best.shape, dtype=torch.int16, device=best.device)
    for k, other in enumerate(probabilities[1:], start=1):
        index.masked_fill_(other > best, k)
        best = torch.maximum(best, other)
    return np.asarray(table[index.cpu().numpy()])


def plan_tiles(walk: Walk, shape: tuple[int, int, int]) -> TileGrid:
    """Return the tiles of a walk over a volume of that shape."""
    return tile_grid(shape, walk.core, walk.halo, walk.border, walk.align)


def plan_region(walk: Walk, shape: tuple[int, int, int], region: Region) -> list[Tile]:
    """Return tiles for a region, each of which reads no more than what it writes asks for.

    What is predicted there is what a walk over the whole volume predicts. Axes that a tile
    sees whole, and tiles that see the mirrored volume beyond its borders (and have one size
    for that), are read as in that walk.
    """
    thin = [2 * (s.stop - s.start) <= core for s, core in zip(region, walk.core, strict=True)]
    if walk.border == "clip" and any(thin):
        # What a thin tile leaves of the memory makes it wide: less context is seen twice.
        z, y, x = (core if t else 2 * core for core, t in zip(walk.core, thin, strict=True))
        walk = replace(walk, core=(z, y, x))
    planned = []
    for tile in plan_tiles(walk, shape).meeting(region):
        write = meet(tile.write, region)
        if walk.border == "clip":
            planned.append(tile_around(write, walk, shape))
        else:
            planned.append(Tile(tile.read, write, relative(write, tile.read)))
    return planned


def order_tiles(tiles: Sequence[Tile], near: View | None) -> list[Tile]:
    """Sort tiles by the distance of what they write from a slice on view."""
    if near is None:
        return list(tiles)
    axis, index = near

    def distance(tile: Tile) -> tuple[float, float]:
        side = tile.write[axis]
        outside = max(side.start - index, index - (side.stop - 1), 0)
        return outside, abs(center_of(tile.write)[axis] - index)

    return sorted(tiles, key=distance)
