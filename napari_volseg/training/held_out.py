"""How good a network is on labeled voxels that it was not trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from napari_volseg.inference.predict import class_probabilities
from napari_volseg.sparse.stage import IGNORE
from napari_volseg.training.events import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_volseg.data.tiles import Region
    from napari_volseg.models.registry import AnyArchitecture
    from napari_volseg.sparse.pool import Pool


def score_held_out(
    module: nn.Module, config: Any, architecture: AnyArchitecture, pool: Pool
) -> Score | None:
    """Predict where voxels are held out and compare.

    Returns
    -------
    Score or None
        None if no voxel is held out.
    """
    confusion = np.zeros((pool.n_classes, pool.n_classes), dtype=np.int64)
    module.eval()
    for case in pool.cases:
        held_out = case.held_out

        def wanted(region: Region, held_out: NDArray[np.int16] = held_out) -> bool:
            return bool((held_out[region] != IGNORE).any())

        regions = class_probabilities(
            module, config, architecture, case.volume, case.intensity, pool.device, wanted=wanted
        )
        for region, probabilities, _, _ in regions:
            truth = held_out[region]
            labeled = truth != IGNORE
            found = probabilities[:, torch.from_numpy(labeled).to(pool.device)].argmax(0)
            pairs = truth[labeled].astype(np.int64) * pool.n_classes + found.cpu().numpy()
            confusion += np.bincount(pairs, minlength=pool.n_classes**2).reshape(confusion.shape)
    return score_of(confusion)


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
