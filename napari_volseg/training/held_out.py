"""How good a network is on labeled voxels that it was not trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from napari_volseg.inference.predict import class_opinions, plan_tiles
from napari_volseg.models.belief import fit_belief, pool_opinions
from napari_volseg.sparse.stage import IGNORE
from napari_volseg.training.events import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_volseg.models.registry import AnyArchitecture
    from napari_volseg.sparse.pool import Pool


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
    found, truth, seen = [], [], []
    random = torch.Generator().manual_seed(0)
    module.eval()
    for case in pool.cases:
        held_out = case.held_out
        every = plan_tiles(architecture.walk(config, case.volume.shape), case.volume.shape)
        tiles = [tile for tile in every if (held_out[tile.write] != IGNORE).any()]
        regions = class_opinions(
            module, config, architecture, case.volume, case.intensity, pool.device, tiles
        )
        for region, opinions, _, _ in regions:
            target = torch.from_numpy(held_out[region])
            labeled = target != IGNORE
            found.append(opinions[:, :, labeled.to(pool.device)].cpu())
            truth.append(target[labeled].long())
            some = torch.randint(target.numel(), (SEEN_VOXELS,), generator=random)
            seen.append(opinions.flatten(2)[:, :, some.to(pool.device)].cpu())
    if not found:
        return None
    opinions, classes = torch.cat(found, 2), torch.cat(truth)
    belief = fit_belief(opinions, classes, pool.counts, torch.cat(seen, 2))
    pairs = classes * pool.n_classes + pool_opinions(opinions, belief).argmax(0)
    confusion = pairs.bincount(minlength=pool.n_classes**2).reshape(pool.n_classes, -1)
    score = score_of(confusion.numpy())
    return score and replace(score, belief=belief)


def score_of(confusion: NDArray[np.int64]) -> Score | None:
    """Intersection over union from a confusion matrix (truth, found), None if it is empty."""
    if not confusion.any():
        return None
    overlap = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - overlap
    present = confusion.sum(1) > 0
    size = np.maximum(union, 1)
    every = overlap / size
    counted = present & (np.arange(len(union)) > 0)
    if not counted.any():
        counted = present
    # IoU is a proportion: of the union's voxels, how many overlap.
    variance = (every * (1 - every) / size)[counted]
    return Score(
        tuple(float(v) if p else None for v, p in zip(every, present, strict=True)),
        float(every[counted].mean()),
        float(np.sqrt(variance.sum()) / len(variance)),
    )
