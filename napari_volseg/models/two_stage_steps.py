"""The four training steps of ``two_stage``: what each sees, its loss, what it moves.

Wang et al. 2018, section 2, "Training pipeline and losses" and "Implementation details".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from napari_volseg.models.two_stage_nets import (
    TwoStage,
    TwoStageConfig,
    at_labels,
    at_voxels,
    read_coarse,
)
from napari_volseg.sparse.augment import change_gray_values, fold, patch_positions
from napari_volseg.sparse.losses import balanced_weights, cross_entropy, dice_loss
from napari_volseg.sparse.optimizer import make_optimizer
from napari_volseg.sparse.patches import labeled_loss
from napari_volseg.sparse.sampling import (
    augmented_positions,
    draw_voxel,
    place_patch,
    read_image,
    read_target,
)
from napari_volseg.sparse.stage import IGNORE, Batch, Stage, constant_rate, schedule_of
from napari_volseg.sparse.whole import draw_case, resample, whole_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.plan import Triple
    from napari_volseg.sparse.pool import Pool, PoolCase

LABELED_AT_ONCE = 2**20
"""Labeled voxels of a whole volume that a step looks at; of more, some are drawn."""


def largest(shapes: Sequence[Triple]) -> Triple:
    """Largest extent along each axis, in voxels."""
    z, y, x = (max(shape[a] for shape in shapes) for a in range(3))
    return z, y, x


def cube(config: TwoStageConfig, side: int, shape: Triple) -> Triple:
    """Voxels (z, y, x) of a cube in space of so many of the finest voxels, cut to a volume's."""
    z, y, x = (
        min(n, max(1, round(side * min(config.voxel) / v)))
        for n, v in zip(shape, config.voxel, strict=True)
    )
    return z, y, x


@dataclass(frozen=True, eq=False)
class Whole:
    """A whole volume, as step 1 sees it.

    Attributes
    ----------
    image : float32 (1, C, z, y, x)
        Resampled for Net1.
    shape : (Z, Y, X)
        Of the volume.
    voxels : int64 (N, 3)
        Labeled ones.
    target : int64 (N,)
        Their class index.
    """

    image: Tensor
    shape: Triple
    voxels: Tensor
    target: Tensor


def sample_whole(
    training: TrainingConfig,
    pool: Pool,
    coarse_image: Callable[[PoolCase], Tensor],
    generator: torch.Generator,
) -> Whole:
    """Draw a volume with its labeled voxels; its gray values change."""
    case = draw_case(pool, generator)
    image = change_gray_values(coarse_image(case)[0], training.gray_value, generator)[None]
    voxels, target = case.labeled()
    if len(target) > LABELED_AT_ONCE:
        drawn = torch.randint(len(target), (LABELED_AT_ONCE,), generator=generator)
        voxels, target = voxels[drawn], target[drawn]
    if training.flips:
        flipped = [a for a in range(3) if float(torch.rand(1, generator=generator)) < 0.5]
        image = image.flip([a + 2 for a in flipped])
        last = torch.tensor(case.volume.shape) - 1
        voxels[:, flipped] = last[flipped] - voxels[:, flipped]
    return Whole(image, case.volume.shape, voxels, target.to(pool.device))


def sample_subvolumes(
    config: TwoStageConfig, training: TrainingConfig, pool: Pool, generator: torch.Generator
) -> Batch:
    """Draw subvolumes of a size, around labeled voxels of which every class is as likely."""
    side = config.sizes[int(torch.randint(len(config.sizes), (1,), generator=generator))]
    shape = cube(config, side, largest([case.volume.shape for case in pool.cases]))
    images, targets = [], []
    for _ in range(training.batch_size or config.batch_size):
        case, voxel, _ = draw_voxel(pool, generator, uniform=1.0)
        center = place_patch(voxel, shape, "clip", case.volume.shape)
        spacing = case.volume.spacing
        positions = augmented_positions(shape, center, spacing, training, generator)
        image = read_image(case, positions, pool.device)
        images.append(change_gray_values(image, training.gray_value, generator))
        targets.append(read_target(case, positions).to(pool.device))
    return Batch(torch.stack(images), torch.stack(targets))


def sample_stacks(
    config: TwoStageConfig,
    training: TrainingConfig,
    pool: Pool,
    found: Mapping[PoolCase, Tensor],
    generator: torch.Generator,
) -> tuple[Batch, Tensor]:
    """Draw stacks of slices whose middle one holds a labeled voxel, every class as likely.

    Parameters
    ----------
    found : mapping of case to float32 (K, z, y, x)
        Net1's logits for the whole volumes.

    Returns
    -------
    Batch
        Images (B, C, neighbors, Y, X), and the target (B, Y, X) of the middle slices.
    float32 (B, K, neighbors, Y, X)
        Net1's logits there.
    """
    axis, half = config.axis, config.neighbors // 2
    sides = list(largest([case.volume.shape for case in pool.cases]))
    sides = list(cube(config, config.plane or max(sides), (sides[0], sides[1], sides[2])))
    sides[axis] = config.neighbors
    shape = (sides[0], sides[1], sides[2])
    images, logits, targets = [], [], []
    for _ in range(training.batch_size or config.stacks):
        case, voxel, _ = draw_voxel(pool, generator, uniform=1.0)
        center = place_patch(voxel, shape, "clip", case.volume.shape)
        center[axis] = voxel[axis]
        spacing = case.volume.spacing
        positions = augmented_positions(shape, center, spacing, training, generator)
        positions[..., axis] = patch_positions(shape, center)[..., axis]
        image = read_image(case, positions, pool.device)
        images.append(change_gray_values(image, training.gray_value, generator))
        inside = fold(positions, case.volume.shape)
        logits.append(read_coarse(found[case], inside, case.volume.shape))
        middle = read_target(case, positions.narrow(axis, half, 1)).to(pool.device)
        targets.append(middle.squeeze(axis))
    batch = Batch(torch.stack(images).movedim(2 + axis, 2), torch.stack(targets))
    return batch, torch.stack(logits).movedim(2 + axis, 2)


def foreground_loss(
    config: TwoStageConfig, training: TrainingConfig, pool: Pool
) -> Callable[[Tensor, Tensor], Tensor]:
    """Equation 2, for logits (B, K, ...) and target: all classes but the first taken as one.

    With the loss "mixed", and cross-entropy as the training settings ask for.
    """
    share = training.dice_weight if config.loss == "mixed" else 1.0
    counts = (pool.counts[0], sum(pool.counts[1:]))
    weights = torch.tensor(balanced_weights(counts, training.balance), device=pool.device)
    foreground = torch.tensor([0.0, 1.0], device=pool.device)

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        two = torch.stack([logits[:, 0], logits[:, 1:].logsumexp(1)], 1)
        where = target.clamp_max(1)
        dice = dice_loss(two, where, class_weights=foreground)
        return share * dice + (1 - share) * cross_entropy(two, where, weights)

    return loss


def multi_class_loss(
    config: TwoStageConfig, training: TrainingConfig, pool: Pool
) -> Callable[[Tensor, Tensor], Tensor]:
    """Equation 1, or the loss of the training settings, for logits (B, K, ...) and target."""
    if config.loss == "mixed":
        return labeled_loss(training, pool)
    weights = balanced_weights(pool.counts, 1.0, training.class_weights)
    return partial(dice_loss, class_weights=torch.tensor(weights, device=pool.device))


def stages(
    config: TwoStageConfig, training: TrainingConfig, pool: Pool
) -> tuple[Stage[TwoStage], ...]:
    """Table 1: the four steps, without those that are left out."""

    @cache
    def coarse_image(case: PoolCase) -> Tensor:
        return resample(whole_image(case, pool.device), config.coarse_shape(case.volume.shape))

    make = partial(
        Stage[TwoStage],
        optimizer=partial(make_optimizer, training, config.learning_rate),
        schedule=constant_rate if config.schedule == "constant" else schedule_of(training),
    )
    steps = (
        localization(config, training, pool, coarse_image, make),
        coarse_segmentation(config, training, pool, make),
        joint_segmentation(config, training, pool, make),
        fine_segmentation(config, training, pool, coarse_image, make),
    )
    return tuple(step for n, step in enumerate(steps, start=1) if n not in config.left_out)


def localization(
    config: TwoStageConfig,
    training: TrainingConfig,
    pool: Pool,
    coarse_image: Callable[[PoolCase], Tensor],
    make: Callable[..., Stage[TwoStage]],
) -> Stage[TwoStage]:
    """Step 1: Net1 tells foreground from background in whole volumes."""
    locate = foreground_loss(config, training, pool)

    def loss(module: TwoStage, whole: Whole, step: int) -> Tensor:
        logits = at_voxels(module.net1(whole.image)[0].float(), whole.voxels, whole.shape)
        return locate(logits[None], whole.target[None])

    return make(
        name="1 localize",
        sample=partial(sample_whole, training, pool, coarse_image),
        loss=loss,
        parameters=net1_parameters,
        share=config.shares[0],
    )


def coarse_segmentation(
    config: TwoStageConfig,
    training: TrainingConfig,
    pool: Pool,
    make: Callable[..., Stage[TwoStage]],
) -> Stage[TwoStage]:
    """Step 2: Net1 also tells the classes apart, in subvolumes."""
    locate = foreground_loss(config, training, pool)
    score = multi_class_loss(config, training, pool)

    def loss(module: TwoStage, batch: Batch, step: int) -> Tensor:
        logits, target = at_labels(module.coarse(batch.image), batch.target)
        return locate(logits, target) + score(logits, target)

    return make(
        name="2 coarse",
        sample=partial(sample_subvolumes, config, training, pool),
        loss=loss,
        parameters=net1_parameters,
        share=config.shares[1],
    )


def joint_segmentation(
    config: TwoStageConfig,
    training: TrainingConfig,
    pool: Pool,
    make: Callable[..., Stage[TwoStage]],
) -> Stage[TwoStage]:
    """Step 3: both networks, end to end, in subvolumes."""
    score = multi_class_loss(config, training, pool)

    def loss(module: TwoStage, batch: Batch, step: int) -> Tensor:
        coarse = module.coarse(batch.image)
        fine, target = label_some_slices(module, batch, coarse)
        return score(*at_labels(coarse, batch.target)) + score(fine, target)

    return make(
        name="3 end to end",
        sample=partial(sample_subvolumes, config, training, pool),
        loss=loss,
        share=config.shares[2],
    )


def fine_segmentation(
    config: TwoStageConfig,
    training: TrainingConfig,
    pool: Pool,
    coarse_image: Callable[[PoolCase], Tensor],
    make: Callable[..., Stage[TwoStage]],
) -> Stage[TwoStage]:
    """Step 4: Net2 labels slices; what Net1, frozen, finds is computed once."""
    score = multi_class_loss(config, training, pool)
    found: dict[PoolCase, Tensor] = {}

    def find(module: TwoStage) -> Iterator[float]:
        module.eval()
        for done, case in enumerate(pool.cases, start=1):
            with torch.no_grad():
                found[case] = module.net1(coarse_image(case))[0].float()
            yield done / len(pool.cases)

    def loss(module: TwoStage, stacks: tuple[Batch, Tensor], step: int) -> Tensor:
        batch, logits = stacks
        seen = torch.cat([batch.image, module.prior(logits)], 1)
        return score(module.net2(seen), batch.target)

    return make(
        name="4 fine",
        sample=partial(sample_stacks, config, training, pool, found),
        loss=loss,
        parameters=net2_parameters,
        share=config.shares[3],
        prepare=find,
    )


def net1_parameters(module: TwoStage) -> Iterable[nn.Parameter]:
    """Net1's parameters."""
    return module.net1.parameters()


def net2_parameters(module: TwoStage) -> Iterable[nn.Parameter]:
    """Net2's parameters."""
    return module.net2.parameters()


def label_some_slices(module: TwoStage, batch: Batch, coarse: Tensor) -> tuple[Tensor, Tensor]:
    """Let Net2 label slices of subvolumes that hold labels, drawn among them.

    Parameters
    ----------
    coarse : float32 (B, K, z, y, x)
        Net1's logits; gradients flow back to them.

    Returns
    -------
    logits : float (n, K, ., .)
    target : int64 (n, ., .)
    """
    prior = module.prior(resample(coarse, batch.image.shape[2:]))
    logits, targets = [], []
    for seen, target in zip(torch.cat([batch.image, prior], 1), batch.target, strict=True):
        across = target.movedim(module.config.axis, 0)
        # A patch that was deformed may have lost a stroke: then any slice, at no loss.
        labeled = (across != IGNORE).flatten(1).any(1).nonzero()[:, 0].tolist() or [0]
        drawn = torch.randperm(len(labeled))[: module.config.stacks].tolist()
        slices = [labeled[i] for i in drawn]
        logits.append(module.fine(seen, slices))
        targets.append(across[slices])
    return torch.cat(logits), torch.cat(targets)
