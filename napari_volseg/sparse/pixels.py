"""A pixel classifier on filter responses: the first answer, seconds after the first strokes.

It labels each voxel by its filter responses alone. A network that learns context is
trained beside it; the mean of both probabilities predicts, so that the network is heard
as far as it is sure of itself.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from napari_volseg.data.tiles import Tile, tile_grid
from napari_volseg.sparse.filters import RESPONSES, filter_bank, reach
from napari_volseg.sparse.losses import cross_entropy
from napari_volseg.sparse.optimizer import make_optimizer
from napari_volseg.sparse.stage import IGNORE, Batch, Stage, constant_rate, warmup_cosine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.pool import Pool, PoolCase

BLOCK = 96
"""Edge of the blocks in which volumes are filtered, in voxels."""

MOST_VOXELS = 400_000
"""Labeled voxels that the classifier learns from; more add nothing but time."""

VOXELS_A_STEP = 16_384


class PixelClassifier(nn.Module):
    """Fully connected layers from the filter responses of a voxel to its logits.

    Parameters
    ----------
    channels, n_classes : int
        Of the image, and to tell apart.
    scales : sequence of float
        Of the filters, in units of ``voxel``.
    voxel : (z, y, x)
        Voxel size.
    units : int
        Of the two hidden layers.
    """

    def __init__(
        self,
        channels: int,
        n_classes: int,
        scales: Sequence[float],
        voxel: Sequence[float],
        units: int = 64,
    ) -> None:
        super().__init__()
        self.scales, self.voxel = tuple(scales), tuple(voxel)
        features = channels * (1 + RESPONSES * len(self.scales))
        # A cumulative average: the statistics of the labeled voxels, not of the last batch.
        self.normalize = nn.BatchNorm1d(features, affine=False, momentum=None)
        self.layers = nn.Sequential(
            nn.Linear(features, units),
            nn.ReLU(),
            nn.Linear(units, units),
            nn.ReLU(),
            nn.Linear(units, n_classes),
        )

    def reach(self) -> tuple[int, int, int]:
        """Voxels (z, y, x) of context that a voxel's logits need on each side."""
        z, y, x = (
            max((reach(scale, self.voxel)[axis] for scale in self.scales), default=0)
            for axis in range(3)
        )
        return z, y, x

    def responses(self, image: Tensor) -> Tensor:
        """Filter responses of an image (B, C, Z, Y, X)."""
        return filter_bank(image, self.scales, self.voxel)

    def forward(self, features: Tensor) -> Tensor:
        """Map responses (N, F) to logits (N, K)."""
        logits: Tensor = self.layers(self.normalize(features))
        return logits

    def over(self, responses: Tensor) -> Tensor:
        """Map responses (B, F, Z, Y, X) to logits (B, K, Z, Y, X), plane by plane."""
        # Hidden units of a whole block at once would take gigabytes.
        planes = []
        for plane in responses.unbind(2):
            features = plane.movedim(1, -1)
            logits = self(features.flatten(0, -2))
            planes.append(logits.unflatten(0, features.shape[:-1]).movedim(-1, 1))
        return torch.stack(planes, 2)


@torch.no_grad()
def labeled_responses(pool: Pool, classifier: PixelClassifier) -> tuple[Tensor, Tensor]:
    """Filter responses and class index of labeled voxels, block by block.

    Returns
    -------
    features : float32 (N, F)
    classes : int64 (N,)
        Both on the pool's device. Of very many labeled voxels, blocks are drawn.
    """
    features, classes, found = [], [], 0
    random = np.random.default_rng(0)
    for case in pool.cases:
        tiles = blocks(case, classifier.reach())
        for index in random.permutation(len(tiles)):
            target = torch.from_numpy(case.target[tiles[index].write]).long()
            labeled = target != IGNORE
            if not labeled.any():
                continue
            responses = block_responses(case, tiles[index], classifier, pool.device)
            features.append(responses[:, labeled.to(pool.device)].T)
            classes.append(target[labeled].to(pool.device))
            found += len(classes[-1])
            if found > MOST_VOXELS:
                break
    return torch.cat(features), torch.cat(classes)


def blocks(case: PoolCase, context: tuple[int, int, int]) -> list[Tile]:
    """Cut a case's volume into blocks with context."""
    return tile_grid(case.volume.shape, (BLOCK, BLOCK, BLOCK), context)


def block_responses(
    case: PoolCase, tile: Tile, classifier: PixelClassifier, device: torch.device
) -> Tensor:
    """Filter responses (F, z, y, x) of what a tile writes."""
    image = case.read(tile.read).to(device)
    return classifier.responses(image[None])[0][(slice(None), *tile.trim)]


def draw_voxels(features: Tensor, classes: Tensor, generator: torch.Generator) -> Batch:
    """Draw labeled voxels for a step, as a batch of one with the voxels along z."""
    index = torch.randint(len(classes), (VOXELS_A_STEP,), generator=generator).to(classes.device)
    return Batch(features[index], classes[index])


def pixel_stage(
    pixels_of: Callable[[nn.Module], PixelClassifier],
    training: TrainingConfig,
    pool: Pool,
    class_weights: Tensor,
) -> Stage:
    """Train the pixel classifier of a network: cross-entropy on labeled voxels' responses.

    Parameters
    ----------
    pixels_of : callable (module) -> PixelClassifier
        Finds it in the network.
    """
    voxels: list[tuple[Tensor, Tensor]] = []

    def prepare(module: nn.Module) -> None:
        voxels[:] = [labeled_responses(pool, pixels_of(module))]

    def loss(module: nn.Module, batch: Batch, step: int) -> Tensor:
        return cross_entropy(pixels_of(module)(batch.image), batch.target, class_weights)

    return Stage(
        name="pixels",
        prepare=prepare,
        sample=lambda generator: draw_voxels(*voxels[0], generator),
        loss=loss,
        optimizer=partial(make_optimizer, training, 1e-2),
        parameters=lambda module: pixels_of(module).parameters(),
        schedule=warmup_cosine if training.optimizer == "adamw" else constant_rate,
        # Its steps take about a tenth of the time of a network's.
        share=0.5 if training.steps else 0.1,
    )
