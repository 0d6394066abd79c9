"""Voxels from anywhere in a volume, whether somebody painted them or not.

They tell how common the classes are, and what a volume holds that nobody painted.
"""

from __future__ import annotations

import math
from itertools import chain
from random import Random
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_volseg.data.tiles import box_shape, box_size, crop_around, start_of
from napari_volseg.sparse.position import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_volseg.data.tiles import Region, TileGrid
    from napari_volseg.sparse.pixels import PixelClassifier
    from napari_volseg.sparse.pool import PoolCase

VOXELS = 20_000
"""Of each volume, drawn at random."""

MOST_FILTERED = 8_000_000
"""Gray values of each volume that are read to filter the tiles that these lie in; once in a
training."""

MOST_TILES = 1000
"""That these are drawn from: of a huge volume there are too many to list."""


def seen_anywhere(
    case: PoolCase, pixels: PixelClassifier, grid: TileGrid, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Draw voxels of a volume (M, 3) from some tiles; return them, and their features (M, F).

    They are kept: whatever is painted, and however often is looked, they are the same.
    """
    for _ in see_anywhere(case, pixels, grid, device):
        pass
    found: tuple[Tensor, Tensor] = case.kept[key_of(pixels)]
    return found


def see_anywhere(
    case: PoolCase, pixels: PixelClassifier, grid: TileGrid, device: torch.device
) -> Iterator[float]:
    """Make what ``seen_anywhere`` returns, unless it is there; yields the part that is done."""
    if key_of(pixels) in case.kept:
        return
    tiles, read = [], 0
    for number in Random(0).sample(range(len(grid)), min(len(grid), MOST_TILES)):
        if read >= MOST_FILTERED:
            break
        tiles.append(grid[number])
        needed, _ = crop_around(tiles[-1].write, pixels.reach, pixels.alignment, case.volume.shape)
        read += case.volume.channels * box_size(needed)
    generator = torch.Generator().manual_seed(0)
    part = VOXELS / sum(box_size(tile.write) for tile in tiles)
    voxels, features = [], []
    for tile in tiles:
        size = torch.tensor(box_shape(tile.write))
        count = math.ceil(part * box_size(tile.write))
        at = (torch.rand(count, 3, generator=generator) * size).long()
        voxels.append(at + torch.tensor(start_of(tile.write)))
        features.append(voxel_responses(pixels, case, tile.write, voxels[-1], device))
        yield len(voxels) / len(tiles)
    case.kept[key_of(pixels)] = torch.cat(voxels), torch.cat(features)


def key_of(pixels: PixelClassifier) -> tuple[object, ...]:
    """Name what is kept for a pixel classifier, and for all with the same features."""
    return "anywhere", *pixels.filters


def voxel_responses(
    classifier: PixelClassifier, case: PoolCase, core: Region, voxels: Tensor, device: torch.device
) -> Tensor:
    """Return the features (N, F) of some voxels (N, 3) of a core, painted or not."""
    seen, within = crop_around(core, classifier.reach, classifier.alignment, case.volume.shape)
    gray = case.read(seen).to(device)[None]
    learned = [] if classifier.learned is None else [classifier.learned.responses(gray, within)]
    z, y, x = (voxels - torch.tensor(start_of(core))).T.to(device)
    # One response after the other: all of a core at once would take gigabytes.
    parts = chain(classifier.fixed_responses(gray, within), learned)
    found = [part[0][:, z, y, x].T for part in parts]
    if classifier.position:
        found.append(scaled(voxels, torch.tensor(case.volume.shape)).to(gray))
    return torch.cat(found, 1)
