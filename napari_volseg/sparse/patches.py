"""The stage that most architectures train by: patches on labels, a loss on their labeled voxels."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from napari_volseg.sparse.losses import balanced_weights, cross_entropy, dice_loss
from napari_volseg.sparse.optimizer import make_optimizer
from napari_volseg.sparse.sampling import PatchPlan, sample_batch
from napari_volseg.sparse.stage import Batch, Stage, all_parameters, schedule_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.pool import Pool

M = TypeVar("M", bound=nn.Module)


def pool_weights(training: TrainingConfig, pool: Pool) -> Tensor:
    """Weight of each class in the loss, float32 (K,) on the pool's device."""
    weights = balanced_weights(pool.counts, training.balance, training.class_weights)
    return torch.tensor(weights, device=pool.device)


def labeled_loss(training: TrainingConfig, pool: Pool) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what scores logits (B, K, ...) against a target (B, ...): cross-entropy and Dice.

    ``(1 - dice_weight) * cross_entropy + dice_weight * dice_loss``, both over labeled
    voxels only.

    In minutes, a network finds no rare class unless all classes have equal influence; but
    then it finds them everywhere. So the loss is that of equal influence, and the logits
    are moved by what separates that from the balance that the training asks for: they
    themselves answer with the latter (logit adjustment, Menon et al. 2021, section 5).
    """
    wanted = pool_weights(training, pool)
    weights, share = pool_weights(replace(training, balance=1.0), pool), training.dice_weight
    # A class without voxels has no weight, and no say.
    shift = torch.where(wanted > 0, weights / wanted, 1.0).log()

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        logits = logits + shift.view(-1, *[1] * (logits.ndim - 2))
        value = (1 - share) * cross_entropy(logits, target, weights)
        return value + share * dice_loss(logits, target) if share else value

    return loss


def patch_stage(
    training: TrainingConfig,
    pool: Pool,
    plan: PatchPlan,
    logits_of: Callable[[M, Tensor], Tensor],
    *,
    name: str = "patches",
    rate: float = 1e-3,
    parameters: Callable[[M], Iterable[nn.Parameter]] = all_parameters,
    share: float = 1.0,
) -> Stage[M]:
    """Train on augmented patches drawn where labels are.

    Parameters
    ----------
    logits_of : callable (module, image (B, C, Z, Y, X)) -> logits (B, K, z, y, x)
        Forward pass; the logits of the patch without its halo.
    rate : float
        AdamW's learning rate, unless the user asks for another.
    """
    score = labeled_loss(training, pool)

    def sample(generator: torch.Generator) -> Batch:
        return sample_batch(pool, plan, training, generator)

    def loss(module: M, batch: Batch, step: int) -> Tensor:
        return score(logits_of(module, batch.image), batch.target)

    return Stage(
        name=name,
        sample=sample,
        loss=loss,
        optimizer=partial(make_optimizer, training, rate),
        parameters=parameters,
        schedule=schedule_of(training),
        share=share,
    )
