"""How good a network is on labeled voxels that it was not trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from napari_volseg.inference.predict import class_probabilities, with_temperature
from napari_volseg.sparse.stage import IGNORE
from napari_volseg.training.events import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_volseg.data.tiles import Region
    from napari_volseg.models.registry import AnyArchitecture
    from napari_volseg.sparse.pool import Pool


MOST_TEMPERATURE = 8.0
"""And its inverse is the least: few voxels are no reason to believe more."""


def score_held_out(
    module: nn.Module, config: Any, architecture: AnyArchitecture, pool: Pool
) -> Score | None:
    """Predict where voxels are held out and compare.

    Returns
    -------
    Score or None
        None if no voxel is held out.
    """
    found, truth = [], []
    module.eval()
    for case in pool.cases:
        held_out = case.held_out

        def wanted(region: Region, held_out: NDArray[np.int16] = held_out) -> bool:
            return bool((held_out[region] != IGNORE).any())

        regions = class_probabilities(
            module, config, architecture, case.volume, case.intensity, pool.device, wanted=wanted
        )
        for region, probabilities, _, _ in regions:
            target = torch.from_numpy(held_out[region])
            labeled = target != IGNORE
            found.append(probabilities[:, labeled.to(pool.device)].T.cpu())
            truth.append(target[labeled].long())
    if not found:
        return None
    probabilities, classes = torch.cat(found), torch.cat(truth)
    pairs = classes * pool.n_classes + probabilities.argmax(1)
    confusion = pairs.bincount(minlength=pool.n_classes**2).reshape(pool.n_classes, -1)
    score = score_of(confusion.numpy())
    return score and replace(score, temperature=fit_temperature(probabilities, classes))


def fit_temperature(probabilities: Tensor, classes: Tensor) -> float:
    """Find the temperature at which probabilities are likeliest to have these classes.

    Guo et al. 2017, On Calibration of Modern Neural Networks, section 4.2: above 1 they
    were too sure, below 1 not sure enough. A network that has learned little, averaged with
    one that has, is of the second kind.

    Parameters
    ----------
    probabilities : float (N, K)
    classes : int64 (N,)
    """

    def surprise(log_temperature: float) -> float:
        calibrated = with_temperature(probabilities, float(np.exp(log_temperature)), dim=1)
        return float(-calibrated[torch.arange(len(classes)), classes].clamp_min(1e-12).log().mean())

    limit = np.log(MOST_TEMPERATURE)
    return float(np.exp(minimize_scalar(surprise, bounds=(-limit, limit), method="bounded").x))


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
