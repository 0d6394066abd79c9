"""How good a network is on labeled voxels that it was not trained on."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from napari_volseg.data.labeled import is_labeled
from napari_volseg.data.tiles import start_of, voxels_read
from napari_volseg.inference.device import out_of_memory, release_memory
from napari_volseg.inference.opinions import class_opinions
from napari_volseg.inference.predict import plan_tiles
from napari_volseg.models.belief import fit_belief, pool_opinions
from napari_volseg.sparse.draw import draw_until_enough
from napari_volseg.sparse.looks import Look
from napari_volseg.sparse.places import LEAST_VOXELS
from napari_volseg.sparse.second_look import HALVES
from napari_volseg.sparse.stage import IGNORE
from napari_volseg.training.events import Score
from napari_volseg.training.evidence import (
    class_iou,
    class_union,
    counted_classes,
    weigh_evidence,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.tiles import Tile
    from napari_volseg.models.registry import AnyArchitecture
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.pool import Pool


MOST_READ = 64_000_000
"""Voxels of volumes that are read to judge by: all tiles of a large one would take hours."""

MOST_READ_IN_TIME = 16_000_000
"""In a training by time on a CPU: they take half a minute of one core."""

SEEN_VOXELS = 10_000
"""Of each region that is predicted, to tell how common the classes are; drawn at random."""


def score_held_out(
    module: nn.Module,
    config: Any,
    architecture: AnyArchitecture,
    pool: Pool,
    most_read: int = MOST_READ,
    look: Callable[[Any, int], Iterator[Look]] | None = None,
) -> Score | None:
    """Hear what is said of held-out voxels, find what that is worth, and compare.

    Parameters
    ----------
    most_read : int
        Voxels of volumes from which on only some of the tiles are looked at.
    look : callable (module, most_read) -> iterator of Look, optional
        Of the same volumes; without it, the tiles with held-out voxels are predicted.

    Returns
    -------
    Score or None
        None if no voxel is held out.
    """
    with_some = [is_labeled(case.held_out, IGNORE) for case in pool.cases]
    if not any(with_some):
        return None
    module.eval()
    predicted = partial(predicted_looks, module, config, architecture, pool, most_read)
    looks: list[Look] | None = None
    try:
        looks = list(look(module, most_read) if look else predicted())
    except (MemoryError, RuntimeError) as error:
        if look is None or not out_of_memory(error):
            raise
    if looks is None:
        # Out of the handler, whose error holds on to what was computed. A prediction goes on in
        # smaller tiles.
        release_memory(pool.device)
        looks = list(predicted())
    classes = torch.cat([torch.empty(0, dtype=torch.int64), *(one.classes for one in looks)])
    if not len(classes):
        return None
    cases = [case for case, some in zip(pool.cases, with_some, strict=True) if some]
    slices = [
        len(case.places.slice_axes) if some else 0
        for case, some in zip(pool.cases, with_some, strict=True)
    ]
    found, places = [], []
    for one in looks:
        case = pool.cases[one.case]
        at = case.places.find(one.voxels)
        half = case.blocks.half(one.voxels)
        found.append(by_the_other(one.opinions, half) if one.halves else one.opinions)
        slice_of = sum(slices[: one.case]) + case.places.slice_of[at]
        places.append(2 * slice_of + case.places.far[at])
    # Where the last opinions are not known, they cannot be judged; the first ones can.
    most = max(len(opinions) for opinions in found if opinions.shape[2])
    full = [n for n, opinions in enumerate(found) if len(opinions) == most]
    least = min(len(one.anywhere) for one in looks)
    belief = fit_belief(
        torch.cat([found[n] for n in full], 2),
        torch.cat([looks[n].classes for n in full]),
        pool.counts,
        pool.strokes,
        torch.cat([one.anywhere[:least] for one in looks], 2),
        max(looks[n].halves for n in full),
    )
    answers = torch.cat([pool_opinions(opinions, belief).argmax(0) for opinions in found])
    shape = (sum(slices), 2, pool.n_classes, pool.n_classes)
    confusion = count_pairs(np.concatenate(places), classes.numpy(), answers.numpy(), shape)
    evidence = weigh_evidence(confusion, [case.places for case in cases])
    score = score_of(confusion.sum((0, 1)))
    return score and replace(score, belief=belief, evidence=evidence)


def predicted_looks(
    module: nn.Module, config: Any, architecture: AnyArchitecture, pool: Pool, most_read: int
) -> Iterator[Look]:
    """Predict tiles with held-out voxels."""
    some = [n for n, case in enumerate(pool.cases) if is_labeled(case.held_out, IGNORE)]
    random = torch.Generator().manual_seed(0)
    for number in some:
        case = pool.cases[number]
        every = plan_tiles(architecture.walk(config, case.volume.shape), case.volume.shape)
        tiles = drawn_tiles(every, case.held_out, pool.n_classes, most_read // len(some))
        regions = class_opinions(
            module, config, architecture, case.volume, case.intensity, pool.device, tiles
        )
        for region, opinions, _, _ in regions:
            target = torch.from_numpy(case.held_out[region])
            labeled = target != IGNORE
            drawn = torch.randint(target.numel(), (SEEN_VOXELS,), generator=random)
            yield Look(
                case=number,
                voxels=np.argwhere(labeled.numpy()) + start_of(region),
                classes=target[labeled].long(),
                opinions=opinions[:, :, labeled.to(pool.device)].cpu(),
                halves=HALVES if architecture.halves(module) else 0,
                anywhere=opinions.flatten(2)[:, :, drawn.to(pool.device)].cpu(),
            )


def drawn_tiles(
    tiles: Sequence[Tile], held_out: AnyLabels, n_classes: int, most_read: int
) -> list[Tile]:
    """Draw tiles with held-out voxels until enough is read; a rare class is not left out.

    The same ones each time, so that scores can be compared.
    """
    counts, with_some = [], []
    for tile in tiles:
        classes = held_out[tile.write]
        found = np.bincount(classes[classes != IGNORE], minlength=n_classes)
        if found.any():
            counts.append(found)
            with_some.append(tile)
    costs = [voxels_read([tile]) for tile in with_some]
    drawn = draw_until_enough(counts, costs, most_read, LEAST_VOXELS)
    return [with_some[number] for number in sorted(drawn)]


def most_read_in(training: TrainingConfig, device: torch.device) -> int:
    """Voxels that a look at held-out voxels may read, in a training on a device."""
    return MOST_READ if training.steps or device.type != "cpu" else MOST_READ_IN_TIME


def by_the_other(opinions: Tensor, half: NDArray[np.int64]) -> Tensor:
    """Let each held-out voxel be judged by the half of the network that was not trained on it.

    Parameters
    ----------
    opinions : float (E, K, N)
        The last two those of the halves.
    half : int64 (N,)
        0 or 1: the one that was trained on it.
    """
    honest = torch.where(torch.from_numpy(half) == 0, opinions[-1], opinions[-2])
    return torch.cat([opinions[:-2], honest.expand(2, -1, -1)])


def count_pairs(
    places: NDArray[np.int64],
    classes: NDArray[np.int64],
    found: NDArray[np.int64],
    shape: tuple[int, int, int, int],
) -> NDArray[np.int64]:
    """Return confusion matrices, int64 (slices, near and far, truth, found) of that shape.

    Parameters
    ----------
    places : int64 (N,)
        Of each voxel, twice its slice, plus 1 where it is far.
    classes, found : int64 (N,)
        What it is, and what the network finds.
    """
    pairs = (places * shape[2] + classes) * shape[3] + found
    return np.bincount(pairs, minlength=int(np.prod(shape))).reshape(shape)


def score_of(confusion: NDArray[np.int64]) -> Score | None:
    """Intersection over union from a confusion matrix (truth, found), None if it is empty."""
    if not confusion.any():
        return None
    present, counted = confusion.sum(1) > 0, counted_classes(confusion)
    every, size = class_iou(confusion), np.maximum(class_union(confusion), 1)
    # IoU is a proportion: of the union's voxels, how many overlap.
    variance = (every * (1 - every) / size)[counted]
    return Score(
        tuple(float(v) if p else None for v, p in zip(every, present, strict=True)),
        float(every[counted].mean()),
        float(np.sqrt(variance.sum()) / len(variance)),
    )
