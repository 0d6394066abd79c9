"""Random 2.5D U-Net: a volume is projected, its projections segmented in 2D, and lifted again.

Angermann, Haltmeier, "Random 2.5D U-net for Fully 3D Segmentation" (2022).
Equation 2 is ``Projection25D``, figure 4 its two paths, section 3.2 the training. The
paper is binary and leaves open, or says in passing; chosen here:

- U is "the same 2D U-net structure as in [9]" with "approximately 8.6 million"
  parameters: the network of ``unet2d``, with a sigmoid.
- K > 2 classes have one map each through U, F, R and T; their sigmoids are divided by
  their sum. Two classes share the paper's one map.
- The 1x2 filters of F run along the detector, across the rotation axis, as in filtered
  backprojection. Path 1 has one for each sector, path 2 one for each direction.
- The sectors are printed as {k, ..., k + 180/p - 1}, which for p = 12 ends at 25
  degrees. Meant is a whole degree from each of p equal parts of 180 degrees.
- T's average pooling keeps the size (stride 1). Its normalization is
  ``10 * (scale * v + shift)``, v the mean over the directions: with the factor 10, Adam's
  steps of 0.001 move it within hundreds of steps. It begins with scale 1 and a decision
  boundary (``BOUNDARY``) above the shadows: begun at one half, it stayed undecided.
- An epoch is a pass over the training volumes, 102 of 119 in each of 7 folds. Sparse
  annotations often have one volume, so an epoch is a number of steps here: for the
  angles and for c. For the learning rate it is from one held-out score to the next,
  and the validation loss is the held-out intersection over union.
- Adam is AdamW with a weight decay of 0.001, as all architectures have it here.
- Augmentation: none but the random directions; the training's is not used.

The conclusion asks for other projections: "mean" is the Radon transform, and R then its
inversion, filtered backprojection.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_volseg.data.errors import InputError
from napari_volseg.models.projections import (
    Detector,
    Directions,
    Projection,
    backproject,
    draw_directions,
    invert_mean,
    pool_by_two,
    project,
)
from napari_volseg.models.registry import Architecture, Walk
from napari_volseg.models.unet2d import PAPER, BaselineConfig
from napari_volseg.models.unet2d import build as build_unet
from napari_volseg.sparse.losses import dice_loss
from napari_volseg.sparse.optimizer import make_optimizer
from napari_volseg.sparse.patches import labeled_loss
from napari_volseg.sparse.stage import IGNORE, Stage, plateau, schedule_of
from napari_volseg.sparse.whole import draw_case, whole_image, whole_target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_volseg.data.annotation import Case
    from napari_volseg.data.tiles import Region
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.plan import Triple
    from napari_volseg.sparse.pool import Pool, PoolCase

GAIN = 10.0
"""Factor on the normalized backprojection."""

BOUNDARY = {"maximum": 0.75, "mean": 0.5}
"""Where T's decision boundary begins: an object casts its shadow on others' voxels from some
directions, on its own from all; an inversion leaves no shadow."""


@dataclass(frozen=True, kw_only=True)
class ProjectionConfig:
    """Settings of the random 2.5D U-Net; the defaults are the paper's.

    Raises
    ------
    InputError
        For settings that build no network.
    """

    channels: int = 32
    """Channels of the 2D U-Net's first level; they double at each of the others."""

    levels: int = 5
    """Resolution levels of the 2D U-Net."""

    directions: int = 60
    """Directions that the volume is reconstructed from, m in the paper."""

    random_directions: int = 12
    """Directions that the 2D U-Net is trained on at once, p in the paper; memory grows with
    it."""

    projection: Projection = "maximum"
    """"maximum" for what is bright and sparse, such as vessels; "mean" (Radon transform) with
    filtered backprojection for compact organs."""

    axis: Literal["z", "y", "x"] = "z"
    """Axis that the directions turn about."""

    voxel: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Voxel size (z, y, x) relative to the finest side, so that angles are those in space."""

    epoch_steps: int = 102
    """Steps of an epoch, after which path 1 draws new angles and path 2 gains weight; 102 of
    the paper's 119 volumes are trained on."""

    learning_rate: float = 1e-3
    """Learning rate, unless the training asks for another."""

    loss: Literal["dice", "mixed"] = "dice"
    """"dice" of the foreground, as in the paper (the training's dice weight and class weights
    have no say), or "mixed" with weighted cross-entropy as the training says."""

    schedule: Literal["plateau", "budget"] = "plateau"
    """"plateau" halves the learning rate after 3 held-out scores without improvement and stops
    after 5, as in the paper; "budget" goes with the training's optimizer."""

    batch_size: int = 1
    """Volumes a step."""

    def __post_init__(self) -> None:
        # Refuses what builds no U-Net.
        assert self.unet
        if not 1 <= self.random_directions <= 180:
            raise InputError(
                f"random_directions is {self.random_directions}; choose 1 to 180, one for each "
                "of as many parts of 180 degrees"
            )
        for name in ("directions", "epoch_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it begins at 1")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate is {self.learning_rate}; it must be positive")
        if any(not side > 0 for side in self.voxel):
            raise InputError(f"voxel {self.voxel} must have positive sides")
        for name, known in (
            ("projection", ("maximum", "mean")),
            ("axis", ("z", "y", "x")),
            ("loss", ("dice", "mixed")),
            ("schedule", ("plateau", "budget")),
        ):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}"
                )

    @property
    def unet(self) -> BaselineConfig:
        """Settings of the 2D U-Net, for which a stack of projections is a volume's slices."""
        return BaselineConfig(channels=self.channels, levels=self.levels, thickness=1)

    @property
    def all_directions(self) -> Directions:
        """Directions of path 2 in degrees, Theta in the paper."""
        return tuple(180 * k / self.directions for k in range(self.directions))


class Reconstruction(nn.Module):
    """Lift segmented projections to a volume: T o R o F.

    Parameters
    ----------
    maps : int
        Of every direction: 1 for two classes, else one for each class.
    directions : int
    """

    def __init__(self, maps: int, directions: int, projection: Projection) -> None:
        super().__init__()
        self.projection = projection
        self.filters = nn.Parameter(torch.full((maps, directions, 2), 0.5))
        self.scale = nn.Parameter(torch.ones(maps))
        self.shift = nn.Parameter(torch.full((maps,), -BOUNDARY[projection]))

    def forward(self, maps: Tensor, degrees: Directions, detector: Detector) -> Tensor:
        """Map projections (B, M, P, H, D) in [0, 1] to logits (B, M, H, A, B)."""
        # F: a convolution of its own for each direction.
        after = functional.pad(maps[..., 1:], (0, 1))
        one, other = self.filters[:, :, None, None, :].unbind(-1)
        filtered = maps * one + after * other
        # R
        if self.projection == "mean":
            volume = invert_mean(filtered, degrees, detector)
        else:
            volume = backproject(filtered, degrees, detector) / len(degrees)
        # T: the pooling looks back by half a voxel, as the filters look ahead by half a
        # pixel: in most directions the two make up for each other.
        volume = pool_by_two(volume)
        scale, shift = (v[:, None, None, None] for v in (self.scale, self.shift))
        return GAIN * (scale * volume + shift)


class Projection25D(nn.Module):
    """The two paths of figure 4, which share U; the second one predicts."""

    def __init__(self, config: ProjectionConfig, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self.config = config
        maps = 1 if n_classes == 2 else n_classes
        self.unet = build_unet(config.unet, in_channels, n_classes)
        self.random = Reconstruction(maps, config.random_directions, config.projection)
        self.full = Reconstruction(maps, config.directions, config.projection)

    def forward(self, image: Tensor) -> Tensor:
        """Map an image (B, C, Z, Y, X) to logits (B, K, Z, Y, X)."""
        projections = project_image(image, self.config.all_directions, self.config)
        return self.full_path(projections, image.shape[2:])

    def segment(self, projections: Tensor) -> Tensor:
        """Apply U: projections (B, C, P, H, D) to maps (B, M, P, H, D) in [0, 1]."""
        # Every projection is an image of its own: a CPU is faster at many than at a thick one.
        batch = len(projections)
        images = projections.movedim(2, 1).flatten(0, 1)[:, :, None]
        logits = self.unet(images)[:, :, 0].unflatten(0, (batch, -1)).movedim(1, 2).float()
        return torch.sigmoid(logits[:, 1:] if logits.shape[1] == 2 else logits)

    def random_path(self, projections: Tensor, degrees: Directions, shape: Sequence[int]) -> Tensor:
        """Path 1: logits (B, K, Z, Y, X) from projections in a direction of each sector."""
        return self.reconstruct(self.random, self.segment(projections), degrees, shape)

    def full_path(self, projections: Tensor, shape: Sequence[int]) -> Tensor:
        """Path 2: logits (B, K, Z, Y, X) from projections in all directions, U being fixed.

        U sees as many images at once as in path 1, so that memory does not grow with
        the directions.
        """
        with torch.no_grad():
            size = self.config.random_directions
            starts = range(0, self.config.directions, size)
            maps = torch.cat([self.segment(projections[:, :, k : k + size]) for k in starts], 2)
        return self.reconstruct(self.full, maps, self.config.all_directions, shape)

    def reconstruct(
        self, part: Reconstruction, maps: Tensor, degrees: Directions, shape: Sequence[int]
    ) -> Tensor:
        """Apply T o R o F in 32 bits, and turn maps into classes and axes back."""
        detector = detector_for(shape, self.config)
        # By name: mixed precision is CUDA's, and not every device knows of it.
        with torch.autocast("cuda", enabled=False):
            logits = part(maps, degrees, detector).movedim(2, 2 + axis_of(self.config))
        if logits.shape[1] == 1:
            return torch.cat([torch.zeros_like(logits), logits], 1)
        # The softmax of these is the sigmoids divided by their sum.
        return functional.logsigmoid(logits)


def axis_of(config: ProjectionConfig) -> int:
    """Index of the rotation axis among z, y, x."""
    return "zyx".index(config.axis)


def detector_for(shape: Sequence[int], config: ProjectionConfig) -> Detector:
    """Return the detector for a volume of shape (z, y, x)."""
    (a, first), (b, second) = (
        (shape[n], config.voxel[n]) for n in range(3) if n != axis_of(config)
    )
    finest = min(first, second)
    return Detector((a, b), (first / finest, second / finest))


def project_image(image: Tensor, degrees: Directions, config: ProjectionConfig) -> Tensor:
    """Project an image (B, C, Z, Y, X) in some directions: (B, C, P, H, D)."""
    detector = detector_for(image.shape[2:], config)
    return project(image.movedim(2 + axis_of(config), 2), degrees, detector, config.projection)


def build(config: ProjectionConfig, in_channels: int, n_classes: int) -> Projection25D:
    """Build the network, U as ``unet2d`` initializes it."""
    return Projection25D(config, in_channels, n_classes)


def auto(cases: Sequence[Case], device: torch.device, training: TrainingConfig) -> ProjectionConfig:
    """Choose a narrow network on a CPU, the paper's on a GPU.

    Mean projections: a maximum shows nothing where a ray meets several objects, as it does
    in most volumes. Short budgets are trained with cross-entropy beside Dice and with the
    training's own schedule: the first held-out scores come before the network has
    learned much.
    """
    spacing = cases[0].volume.spacing
    z, y, x = (s / min(spacing) for s in spacing)
    common = ProjectionConfig(
        projection="mean", voxel=(z, y, x), loss="mixed", schedule="budget", epoch_steps=20
    )
    if device.type != "cpu":
        return common
    return replace(common, channels=8, levels=4, epoch_steps=10, learning_rate=3e-3)


def path_balance(epoch: int) -> float:
    """Weight c of path 1: ``c(1) = 0.99, c(n + 1) = c(n) * 0.99**n`` (section 3.2)."""
    return float(0.99 * 0.99 ** (epoch * (epoch - 1) / 2))


def stages(
    config: ProjectionConfig, training: TrainingConfig, pool: Pool
) -> tuple[Stage[Projection25D], ...]:
    """Both paths at once: ``c * loss(path 1) + (1 - c) * loss(path 2)`` (section 3.2).

    What path 2 sees is projected once, ahead; what path 1 sees, once an epoch.
    """
    # Of the image alone: it serves again when labels have changed.
    everywhere = ("projections", config)

    def prepare(module: Projection25D) -> Iterator[float]:
        total = len(pool.cases) * config.directions
        for number, case in enumerate(pool.cases):
            if everywhere in case.kept:
                continue
            image = whole_image(case, pool.device)
            found = []
            for angle in config.all_directions:
                found.append(project_image(image, (angle,), config))
                yield (number * config.directions + len(found)) / total
            case.kept[everywhere] = torch.cat(found, 2)

    @lru_cache(maxsize=len(pool.cases))
    def projections(case: PoolCase, degrees: Directions) -> Tensor:
        return project_image(whole_image(case, pool.device), degrees, config)

    def sample(generator: torch.Generator) -> list[PoolCase]:
        count = training.batch_size or config.batch_size
        return [draw_case(pool, generator) for _ in range(count)]

    foreground = torch.ones(pool.n_classes, device=pool.device)
    foreground[0] = 0
    score = (
        labeled_loss(training, pool)
        if config.loss == "mixed"
        else partial(dice_loss, class_weights=foreground)
    )

    def loss(module: Projection25D, batch: list[PoolCase], step: int) -> Tensor:
        epoch = 1 + step // config.epoch_steps
        # All steps of an epoch draw the same angles, also after a resume.
        generator = torch.Generator().manual_seed((training.seed * 1_000_003 + epoch) % 2**63)
        degrees = draw_directions(config.random_directions, generator)
        c = path_balance(epoch)
        total = torch.zeros((), device=pool.device)
        for case in batch:
            target = whole_target(case, pool.device)
            shape = target.shape[1:]
            labeled = target != IGNORE
            paths = (
                module.random_path(projections(case, degrees), degrees, shape),
                module.full_path(case.kept[everywhere], shape),
            )
            one, two = (score(p[:, :, labeled[0]], target[labeled][None]) for p in paths)
            total = total + (c * one + (1 - c) * two) / len(batch)
        return total

    return (
        Stage(
            name="both paths",
            sample=sample,
            loss=loss,
            optimizer=partial(make_optimizer, training, config.learning_rate),
            schedule=plateau if config.schedule == "plateau" else schedule_of(training),
            prepare=prepare,
        ),
    )


def walk(config: ProjectionConfig, shape: Triple) -> Walk:
    """Whole volumes: a ray crosses all of it."""
    return Walk(core=(0, 0, 0))


def probabilities(
    module: Projection25D, config: ProjectionConfig, block: Tensor, core: Region
) -> Tensor:
    """Class probabilities (K, z, y, x) of a core of a block (1, C, z, y, x)."""
    return torch.softmax(module(block)[(0, slice(None), *core)], 0)


ARCHITECTURES = (
    Architecture(
        name="projection25d",
        title="Random 2.5D U-Net",
        summary="Sees the whole volume in projections: for sparse, bright structures like vessels.",
        paper=PAPER,
        config=ProjectionConfig,
        presets={"paper": ProjectionConfig()},
        auto=auto,
        build=build,
        stages=stages,
        walk=walk,
        probabilities=probabilities,
    ),
)
