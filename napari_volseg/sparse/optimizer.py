"""The optimizers that a user can choose from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from napari_volseg.sparse.config import TrainingConfig

SGD_RATE = 1e-3


def make_optimizer(
    training: TrainingConfig,
    rate: float,
    parameters: Iterable[nn.Parameter],
    weight_decay: float = 1e-3,
) -> torch.optim.Optimizer:
    """Build SGD as in the 3D U-Net paper, or AdamW for a short budget.

    The paper says "stochastic gradient descent solver of the Caffe framework" and gives
    no rate; the momentum 0.99 is the u-net's of the same authors (Ronneberger 2015), the
    rate 0.001 was chosen here.

    Parameters
    ----------
    rate : float
        AdamW's learning rate, unless the user asks for another.
    weight_decay : float
        AdamW's.
    """
    if training.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=training.learning_rate or SGD_RATE, momentum=0.99)
    return torch.optim.AdamW(
        parameters, lr=training.learning_rate or rate, weight_decay=weight_decay
    )
