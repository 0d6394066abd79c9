"""How much memory a prediction takes, found without predicting anything."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Any

import torch

from napari_volseg.data.tiles import box_shape, voxels_read
from napari_volseg.inference.device import free_memory
from napari_volseg.inference.ledger import META, Ledger
from napari_volseg.models.belief import Belief, pool_opinions
from napari_volseg.sparse.position import POSITION_CHANNELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_volseg.data.tiles import Tile
    from napari_volseg.models.registry import AnyArchitecture

SAFE = 0.8
"""Part of the free memory that may be planned with: estimates err, and others use memory too."""

SURELY_ENOUGH = 2000
"""Bytes for each voxel that a tile reads: none of our networks takes as much, so where there is
more, nothing has to be estimated, which takes a second the first time."""


def most_voxels(
    architecture: AnyArchitecture,
    config: Any,
    tile: Tile,
    extent: Sequence[int],
    n_classes: int,
    device: torch.device,
) -> int:
    """Return how many voxels a tile may read to fit into the free memory; 0 for no limit.

    The parameters are those of ``tile_memory``.
    """
    largest = voxels_read([tile])
    usable = SAFE * free_memory(device)
    if largest * SURELY_ENOUGH <= usable:
        return 0
    try:
        needed = tile_memory(architecture, config, tile, extent, n_classes, device)
    except (RuntimeError, TypeError, ValueError, AttributeError):
        # Somebody else's network may ask for values; then it is seen when memory runs out.
        return 0
    return 0 if needed <= usable else int(largest * usable / needed)


def tile_memory(
    architecture: AnyArchitecture,
    config: Any,
    tile: Tile,
    extent: Sequence[int],
    n_classes: int,
    device: torch.device,
) -> int:
    """Estimate the memory for predicting a tile, network included, in bytes.

    Parameters
    ----------
    config : dataclass
        The network's.
    tile : Tile
        The largest of the architecture's walk.
    extent : (C, Z, Y, X)
        Of the volume.
    device : torch.device
        Where it would be predicted.
    """
    channels, *whole = extent
    shape = (whole[0], whole[1], whole[2])
    sides = box_shape(tile.read)
    seen = channels + POSITION_CHANNELS * architecture.walk(config, shape).position
    with torch.no_grad(), Ledger(device) as ledger:
        with META:
            module = architecture.build(config, channels, n_classes).eval()
        block = torch.empty(1, seen, *sides, device=META)
        pool_opinions(architecture.opinions(module, config, block, tile.trim), Belief())
    return int(ledger.peak)


def give_back_freed() -> None:
    """Give the system back the memory that was freed.

    glibc keeps it, in pieces between those in use, and ever more of them in a long run.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
