"""How good a network is on labeled voxels that it was not trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from napari_volseg.data.sparse_labels import SparseLabels, is_labeled
from napari_volseg.inference.opinions import class_opinions
from napari_volseg.inference.predict import plan_tiles
from napari_volseg.models.belief import fit_belief, pool_opinions
from napari_volseg.sparse.stage import IGNORE
from napari_volseg.training.events import Score
from napari_volseg.training.evidence import (
    class_iou,
    class_union,
    counted_classes,
    weigh_evidence,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_volseg.models.registry import AnyArchitecture
    from napari_volseg.sparse.pool import Pool


MOST_TILES = 8
"""That are predicted of a volume too large for an array of labels: all would take hours."""

SEEN_VOXELS = 10_000
"""Of each region that is predicted, to tell how common the classes are; drawn at random."""


def score_held_out(
    module: nn.Module, config: Any, architecture: AnyArchitecture, pool: Pool
) -> Score | None:
    """Predict where voxels are held out, find what that is worth, and compare.

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
    for case in cases:
        held_out = case.held_out
        every = plan_tiles(architecture.walk(config, case.volume.shape), case.volume.shape)
        tiles = [tile for tile in every if (held_out[tile.write] != IGNORE).any()]
        if isinstance(held_out, SparseLabels):
            # The same ones each time, so that scores can be compared.
            chosen = np.random.default_rng(0).permutation(len(tiles))[:MOST_TILES]
            tiles = [tiles[i] for i in sorted(chosen)]
        regions = class_opinions(
            module, config, architecture, case.volume, case.intensity, pool.device, tiles
        )
        for region, opinions, _, _ in regions:
            target = torch.from_numpy(held_out[region])
            labeled = target != IGNORE
            of_labeled = opinions[:, :, labeled.to(pool.device)].cpu()
            at = case.places.find(region, labeled.numpy())
            if architecture.halves(module):
                half = case.blocks.half(case.places.positions(at))
                of_labeled = by_the_other(of_labeled, half)
            found.append(of_labeled)
            truth.append(target[labeled].long())
            places.append(2 * (n_slices + case.places.slice_of[at]) + case.places.far[at])
            some = torch.randint(target.numel(), (SEEN_VOXELS,), generator=random)
            seen.append(opinions.flatten(2)[:, :, some.to(pool.device)].cpu())
        n_slices += len(case.places.slice_axes)
    opinions, classes = torch.cat(found, 2), torch.cat(truth)
    belief = fit_belief(opinions, classes, pool.counts, pool.strokes, torch.cat(seen, 2))
    answers = pool_opinions(opinions, belief).argmax(0).numpy()
    shape = (n_slices, 2, pool.n_classes, pool.n_classes)
    confusion = count_pairs(np.concatenate(places), classes.numpy(), answers, shape)
    evidence = weigh_evidence(confusion, [case.places for case in cases])
    score = score_of(confusion.sum((0, 1)))
    return score and replace(score, belief=belief, evidence=evidence)


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
