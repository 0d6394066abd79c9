"""How good a network is on labeled voxels that it was not trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from napari_volseg.data.sparse_labels import is_labeled
from napari_volseg.data.tiles import voxels_read
from napari_volseg.inference.opinions import class_opinions
from napari_volseg.inference.predict import plan_tiles
from napari_volseg.models.belief import fit_belief, pool_opinions
from napari_volseg.sparse.draw import draw_until_enough
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
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_volseg.data.sparse_labels import AnyLabels
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
) -> Score | None:
    """Predict where voxels are held out, find what that is worth, and compare.

    Parameters
    ----------
    most_read : int
        Voxels of volumes from which on only some of the tiles are predicted.

    Returns
    -------
    Score or None
        None if no voxel is held out.
    """
    cases = [case for case in pool.cases if is_labeled(case.held_out, IGNORE)]
    if not cases:
        return None
    found, truth, seen, places = [], [], [], []
    n_slices = 0
    random = torch.Generator().manual_seed(0)
    module.eval()
    second = HALVES if architecture.halves(module) else 0
    for case in cases:
        held_out = case.held_out
        every = plan_tiles(architecture.walk(config, case.volume.shape), case.volume.shape)
        tiles = drawn_tiles(every, held_out, pool.n_classes, most_read // len(cases))
        regions = class_opinions(
            module, config, architecture, case.volume, case.intensity, pool.device, tiles
        )
        for region, opinions, _, _ in regions:
            target = torch.from_numpy(held_out[region])
            labeled = target != IGNORE
            of_labeled = opinions[:, :, labeled.to(pool.device)].cpu()
            at = case.places.find(region, labeled.numpy())
            if second:
                half = case.blocks.half(case.places.positions(at))
                of_labeled = by_the_other(of_labeled, half)
            found.append(of_labeled)
            truth.append(target[labeled].long())
            places.append(2 * (n_slices + case.places.slice_of[at]) + case.places.far[at])
            some = torch.randint(target.numel(), (SEEN_VOXELS,), generator=random)
            seen.append(opinions.flatten(2)[:, :, some.to(pool.device)].cpu())
        n_slices += len(case.places.slice_axes)
    opinions, classes = torch.cat(found, 2), torch.cat(truth)
    anywhere = torch.cat(seen, 2)
    belief = fit_belief(opinions, classes, pool.counts, pool.strokes, anywhere, second)
    answers = pool_opinions(opinions, belief).argmax(0).numpy()
    shape = (n_slices, 2, pool.n_classes, pool.n_classes)
    confusion = count_pairs(np.concatenate(places), classes.numpy(), answers, shape)
    evidence = weigh_evidence(confusion, [case.places for case in cases])
    score = score_of(confusion.sum((0, 1)))
    return score and replace(score, belief=belief, evidence=evidence)


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
