"""What is said of held-out voxels, by which a training is judged.

A pixel classifier has the features of held-out voxels since it was trained: beside them, a
look takes nothing but the network. To filter all of a volume around them, as its prediction
does, would take many times as long, again at every look.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from napari_volseg.data.tiles import box_size, start_of
from napari_volseg.sparse.anywhere import seen_anywhere
from napari_volseg.sparse.draw import draw_until_enough
from napari_volseg.sparse.labeled_blocks import labeled_responses
from napari_volseg.sparse.places import LEAST_VOXELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_volseg.data.tiles import Region, TileGrid
    from napari_volseg.sparse.labeled_blocks import Block
    from napari_volseg.sparse.pixels import PixelClassifier
    from napari_volseg.sparse.pool import Pool, PoolCase

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Look:
    """What is said of some voxels of a volume.

    Attributes
    ----------
    case : int
        Which of the pool's volumes.
    voxels : int64 (N, 3)
        Held-out ones.
    classes : int64 (N,)
        What they are.
    opinions : float32 (E, K, N)
        In one look more of them may be known than in another.
    halves : int
        How many of them, the last ones, were each trained on one half of what is held out.
    anywhere : float32 (E, K, M)
        Of voxels drawn from the volume, painted or not.
    """

    case: int
    voxels: NDArray[np.int64]
    classes: Tensor
    opinions: Tensor
    halves: int
    anywhere: Tensor


@torch.no_grad()
def pixel_looks(
    pool: Pool,
    pixels_of: Callable[[M], PixelClassifier],
    network: Callable[[M, PoolCase, Region], Tensor],
    tiles_of: Callable[[PoolCase], TileGrid],
    module: M,
    most_read: int,
    again: Callable[[M, Block, Tensor], Tensor | None] | None = None,
) -> Iterator[Look]:
    """Look at the held-out voxels that a pixel classifier has the features of.

    Parameters
    ----------
    pixels_of : callable (module) -> PixelClassifier
    network : callable (module, case, region) -> float (K, z, y, x)
        How likely each class is by the network beside it.
    tiles_of : callable (case) -> tiles
        In which that network sees a volume.
    module : nn.Module
        In evaluation mode.
    most_read : int
        Voxels of volumes from which on only some of the tiles are looked at.
    again : callable (module, block, features) -> float (2, K, N) or None, optional
        What the halves of a second look say of a block's held-out voxels, if that is known.
    """
    pixels = pixels_of(module)
    judged: dict[PoolCase, list[tuple[Block, Tensor]]] = {}
    for _, block, features in labeled_responses(pool, pixels):
        if block.held_out.any():
            own = features[block.held_out.to(features.device)]
            judged.setdefault(block.case, []).append((block, own))
    for number, case in enumerate(pool.cases):
        if case not in judged:
            continue
        grid, see = tiles_of(case), partial(network, module, case)
        blocks = [block for block, _ in judged[case]]
        voxels = [block.voxels[block.held_out] for block in blocks]
        classes = [block.classes[block.held_out] for block in blocks]
        most = most_read // len(judged)
        said, seen = at_voxels(see, grid, torch.cat(voxels), torch.cat(classes), most)
        start = 0
        for (block, features), at, of_class in zip(judged[case], voxels, classes, strict=True):
            inside = seen[start : start + len(at)]
            opinions = beside(said[:, start : start + len(at)], pixels, features)
            start += len(at)
            more = again(module, block, features) if again else None
            if more is not None:
                opinions = torch.cat([opinions, more.cpu()])
            yield Look(
                case=number,
                voxels=at[inside].numpy(),
                classes=of_class[inside],
                opinions=opinions[:, :, inside],
                halves=0 if more is None else len(more),
                anywhere=opinions[:, :, :0],
            )
        if pool.strokes:
            at, features = seen_anywhere(case, pixels, grid, pool.device)
            context, _ = at_voxels(see, grid, at)
            opinions = beside(context, pixels, features)
            none = torch.empty(0, 3, dtype=torch.int64)
            yield Look(number, none.numpy(), none[:, 0], opinions[:, :, :0], 0, opinions)


def at_voxels(
    see: Callable[[Region], Tensor],
    grid: TileGrid,
    voxels: Tensor,
    classes: Tensor | None = None,
    most_read: int = 0,
) -> tuple[Tensor, Tensor]:
    """Look at the tiles of some voxels.

    Parameters
    ----------
    see : callable (region) -> float (K, z, y, x)
    voxels : int64 (N, 3)
    classes : int64 (N,), optional
        With them, only some tiles are looked at, until ``most_read`` voxels are read; a rare class
        is not left out.

    Returns
    -------
    found : float32 (K, N)
    seen : bool (N,)
        Whether that says anything.
    """
    # In which tile each is: those of a large volume are many.
    starts = [[write.start for _, write, _ in sides] for sides in grid.axes]
    along = [
        np.searchsorted(s, at, "right") - 1 for s, at in zip(starts, voxels.numpy().T, strict=True)
    ]
    places, which = np.unique(
        np.ravel_multi_index(tuple(along), [len(s) for s in starts]), return_inverse=True
    )
    drawn = list(range(len(places)))
    if classes is not None:
        pairs = which * (int(classes.max()) + 1) + classes.numpy()
        counts = np.bincount(pairs, minlength=len(places) * (int(classes.max()) + 1))
        costs = [box_size(grid[int(place)].read) for place in places]
        drawn = draw_until_enough(
            counts.reshape(len(places), -1).tolist(), costs, most_read, LEAST_VOXELS
        )
    seen, found = torch.zeros(len(voxels), dtype=torch.bool), torch.empty(0, len(voxels))
    for number in sorted(drawn):
        write = grid[int(places[number])].write
        said = see(write).cpu()
        if not len(found):
            found = torch.zeros(len(said), len(voxels))
        here = torch.from_numpy(which == number)
        z, y, x = (voxels[here] - torch.tensor(start_of(write))).T
        found[:, here] = said[:, z, y, x]
        seen |= here
    return found, seen


def beside(context: Tensor, pixels: PixelClassifier, features: Tensor) -> Tensor:
    """Put what a network says (K, N), and what a pixel classifier does of features, together."""
    said = pixels(features).softmax(2).movedim(2, 1).cpu()
    return torch.cat([context[None], said])
