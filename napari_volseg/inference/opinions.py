"""What a network says of the tiles of a volume, also seen in mirrors and in halves."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from napari_volseg.data.errors import InputError
from napari_volseg.data.intensity import Intensity, read_standardized
from napari_volseg.data.tiles import Region, Tile, crop_around, voxels_read
from napari_volseg.inference.device import describe_device, out_of_memory, release_memory
from napari_volseg.sparse.position import with_region_position

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from napari_volseg.data.volume import Volume
    from napari_volseg.models.registry import AnyArchitecture, Walk

MIRRORS = tuple(axes for n in (1, 2, 3) for axes in combinations(range(3), n))
"""Along which axes each image is mirrored that flip averaging sees beside the volume."""

WORTHWHILE = 0.9
"""Of what a tile reads, what a half of it may read: the rest of it is context, again."""


Opinions = tuple[Region, Tensor, int, int]
"""A region, the opinions (E, K, z, y, x) on it, regions done, regions in all."""


def class_opinions(
    module: nn.Module,
    config: object,
    architecture: AnyArchitecture,
    volume: Volume,
    intensity: Intensity,
    device: torch.device,
    tiles: Sequence[Tile],
) -> Iterator[Opinions]:
    """Yield the class probabilities of tiles of a volume, of each as soon as it is there.

    The parameters are those of ``opinions_in_passes``.
    """
    passes = opinions_in_passes(module, config, architecture, volume, intensity, device, tiles)
    return (found for found in passes if found is not None)


@torch.inference_mode()
def opinions_in_passes(
    module: nn.Module,
    config: object,
    architecture: AnyArchitecture,
    volume: Volume,
    intensity: Intensity,
    device: torch.device,
    tiles: Sequence[Tile],
    flips: bool = False,
    most: int = 0,
) -> Iterator[Opinions | None]:
    """Yield the class probabilities of tiles of a volume.

    Those of the network and, where it has one, of each part of its instant answer.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode, on the device.
    tiles : sequence of Tile
        Of the architecture's walk.
    flips : bool
        Whether each is the mean over eight mirrored images.
    most : int
        Voxels that are read at once; larger tiles are computed in halves. 0: no limit.

    Yields
    ------
    region, opinions (E, K, z, y, x) on the device, regions done, regions in all
        Or None, between the passes of a tile that takes several: a time to be closed.

    Raises
    ------
    InputError
        If memory runs out, and the walk allows no smaller tile.
    """
    walk = architecture.walk(config, volume.shape)

    def tile_opinions(tile: Tile) -> Generator[None, None, Tensor]:
        read = read_to_the_end(tile.read, walk, volume.shape) if flips else tile.read
        block = torch.from_numpy(read_standardized(volume, read, intensity))
        if walk.position:
            block = with_region_position(block, read, volume.shape)
        # Its position belongs to a voxel, and is mirrored with it.
        block = block[None].to(device)
        found = architecture.opinions(module, config, block, tile.trim)
        for axes in MIRRORS if flips else ():
            yield
            along = [2 + axis for axis in axes]
            core = mirrored(tile.trim, axes, block.shape[2:])
            found += architecture.opinions(module, config, block.flip(along), core).flip(along)
        return found / (1 + len(MIRRORS)) if flips else found

    def in_pieces(tile: Tile) -> Generator[None, None, Tensor]:
        """Compute a tile; where memory would run out, or does, one half after the other."""
        read = voxels_read([tile])
        pieces = halves(tile, walk, volume.shape) if 0 < most < read else []
        if not pieces or voxels_read(pieces[:1]) > WORTHWHILE * read:
            try:
                return (yield from tile_opinions(tile))
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                pieces = halves(tile, walk, volume.shape)
                if not pieces:
                    size = " x ".join(str(side.stop - side.start) for side in tile.read)
                    raise InputError(
                        f"{volume.name}: memory ran out on {describe_device(device)} for {size} "
                        "voxels at once, and this network takes no fewer; close other programs, "
                        "choose another device, or train another architecture"
                    ) from error
        # Out of the handler, whose error holds on to what the attempt had computed.
        release_memory(device)
        first = yield from in_pieces(pieces[0])
        yield
        second = yield from in_pieces(pieces[1])
        axis = next(a for a in range(3) if pieces[0].write[a] != pieces[1].write[a])
        return torch.cat([first, second], 2 + axis)

    for done, tile in enumerate(tiles, start=1):
        found = yield from in_pieces(tile)
        yield tile.write, found, done, len(tiles)


def mirrored(core: Region, axes: Sequence[int], shape: Sequence[int]) -> Region:
    """Return where a core of a block of that shape lies once it is mirrored along axes."""
    z, y, x = (
        slice(n - side.stop, n - side.start) if axis in axes else side
        for axis, (side, n) in enumerate(zip(core, shape, strict=True))
    )
    return z, y, x


def read_to_the_end(read: Region, walk: Walk, shape: Sequence[int]) -> Region:
    """Return a region that is aligned from the volume's end, too, for tiles that are.

    In a mirror that is where it begins, and pooling must fall on the same voxels whatever the
    tile.
    """
    if walk.border != "clip":
        return read
    z, y, x = (
        slice(side.start, n - (n - side.stop) // step * step)
        for side, step, n in zip(read, walk.align, shape, strict=True)
    )
    return z, y, x


def tile_around(write: Region, walk: Walk, shape: tuple[int, int, int]) -> Tile:
    """Return the tile of a walk with border "clip" that writes a region, and reads its context."""
    # A core of 0 stands for a whole axis, which is then needed whole.
    z, y, x = (h if core else n for core, h, n in zip(walk.core, walk.halo, shape, strict=True))
    read, trim = crop_around(write, (z, y, x), walk.align, shape)
    return Tile(read, write, trim)


def halves(tile: Tile, walk: Walk, shape: tuple[int, int, int]) -> list[Tile]:
    """Cut a tile in two across its longest side; [] where the walk does not allow it."""
    sides = [s.stop - s.start if core else 0 for s, core in zip(tile.write, walk.core, strict=True)]
    axis = sides.index(max(sides))
    if walk.border != "clip" or sides[axis] < 2:
        return []
    start, stop = tile.write[axis].start, tile.write[axis].stop
    middle = (start + stop) // 2
    found = []
    for part in (slice(start, middle), slice(middle, stop)):
        z, y, x = (part if a == axis else side for a, side in enumerate(tile.write))
        found.append(tile_around((z, y, x), walk, shape))
    return found
