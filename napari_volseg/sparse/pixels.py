"""A pixel classifier on filter responses: the first answer, seconds after the first strokes.

It labels each voxel by its filter responses alone, and has two opinions: one knows where in
the volume the voxel is and what lies far around it, which tells anatomy, and sees what a
network that was shown generated scenes makes of it; the other sees only what is near, as
learned from one slice it holds everywhere. A network that learns context is trained beside it;
held-out voxels tell how far each is to be trusted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_volseg.sparse.anywhere import see_anywhere, seen_anywhere
from napari_volseg.sparse.filters import RESPONSES, alignment, filter_bank, widest_reach
from napari_volseg.sparse.forest import guess
from napari_volseg.sparse.labeled_blocks import MOST_VOXELS, labeled_responses
from napari_volseg.sparse.learned_filters import (
    LEARNED,
    LearnedFilters,
    learned_alignment,
    learned_reach,
)
from napari_volseg.sparse.losses import cross_entropy
from napari_volseg.sparse.optimizer import make_optimizer
from napari_volseg.sparse.patches import pool_weights
from napari_volseg.sparse.plan import Triple, each
from napari_volseg.sparse.position import POSITION_CHANNELS
from napari_volseg.sparse.stage import Batch, Stage, schedule_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_volseg.data.tiles import Region, TileGrid
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.pool import Pool, PoolCase

M = TypeVar("M", bound=nn.Module)

LINEAR_SCALES = 2
"""Scales, from the finest, at which the opinion that knows the place sees unbent gray values
too. The other one sees them at all of its scales."""

NEAR_SCALES = 4
"""Scales, from the finest, of the opinion that sees only what is near."""

BRIGHTEST = 8.0
"""Standardized gray value beyond which unbent ones end: a few could outweigh all others."""

STEPS = 600
"""In a training by time; with weight decay, more change nothing."""

STEPS_FOR = 100_000
"""Labeled voxels up to which that is so; for more of them, as many times more steps."""

VOXELS_A_STEP = 4096

GUESSES_A_STEP = 1024
"""Voxels that nobody need have painted."""

GUESS_WEIGHT, STROKE_GUESS_WEIGHT = 0.1, 0.25
"""Of what a forest guesses of these, beside the paint's weight of 1: where paint is whole slices,
and where all of it is strokes, which show less of a volume."""

WEIGHT_DECAY = 1.0
"""Strong, for it sees each labeled voxel many times: with 0.001 it becomes as sure of what it
knows by heart as of the rest, and outvotes the network where it is wrong."""


class VoxelNetwork(nn.Module):
    """Fully connected layers from some of a voxel's features to its logits.

    Parameters
    ----------
    columns : sequence of int
        The features that it sees.
    n_classes, units : int
        Classes to tell apart, and size of the two hidden layers.
    """

    columns: Tensor

    def __init__(self, columns: Sequence[int], n_classes: int, units: int) -> None:
        super().__init__()
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        # A cumulative average: the statistics of the labeled voxels, not of the last batch.
        self.normalize = nn.BatchNorm1d(len(columns), affine=False, momentum=None)
        self.layers = nn.Sequential(
            nn.Linear(len(columns), units),
            nn.ReLU(),
            nn.Linear(units, units),
            nn.ReLU(),
            nn.Linear(units, n_classes),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, F) to logits (N, K)."""
        logits: Tensor = self.layers(self.normalized(features))
        return logits

    def normalized(self, features: Tensor) -> Tensor:
        """Take the features that it sees (N, f) out of all (N, F), and normalize them."""
        found: Tensor = self.normalize(features.index_select(1, self.columns))
        return found

    @torch.no_grad()
    def matrices(self, features: int) -> list[tuple[Tensor, Tensor]]:
        """Return the weight and bias (a column) of each layer, the first one's of all features.

        What the features are normalized by is in them: it need not be done voxel by voxel.
        """
        first, *rest = (layer for layer in self.layers if isinstance(layer, nn.Linear))
        return [
            self.normalizing(first, features),
            *((layer.weight, layer.bias[:, None]) for layer in rest),
        ]

    def normalizing(self, layer: nn.Linear, features: int) -> tuple[Tensor, Tensor]:
        """Return the weight and bias (a column) with which a layer sees features as they are."""
        mean, variance = self.normalize.running_mean, self.normalize.running_var
        assert mean is not None and variance is not None
        scaled = layer.weight / (variance + self.normalize.eps).sqrt()
        weight = scaled.new_zeros(len(scaled), features)
        weight[:, self.columns] = scaled
        return weight, (layer.bias - scaled @ mean)[:, None]


class PixelClassifier(nn.Module):
    """Two opinions of a voxel from its filter responses.

    Parameters
    ----------
    channels, n_classes : int
        Of the image, and to tell apart.
    scales : sequence of float
        Of the filters, in units of ``voxel``.
    voxel : (z, y, x)
        Voxel size.
    position : bool
        Whether it is told where the voxel is: images have position channels then.
    learned : bool
        Whether the opinion that knows the place sees the responses of learned filters, too.
    units : int
        Of the two hidden layers.
    """

    def __init__(
        self,
        channels: int,
        n_classes: int,
        scales: Sequence[float],
        voxel: Sequence[float],
        position: bool = False,
        learned: bool = False,
        units: int = 64,
    ) -> None:
        super().__init__()
        self.scales, self.voxel, self.position = tuple(scales), tuple(voxel), position
        self.channels = channels
        self.learned = LearnedFilters(self.voxel) if learned else None

        def up_to(scale: int) -> int:
            return channels * (1 + RESPONSES * len(self.scales[:scale]))

        # The features, in this order: of bent gray values, of unbent ones, learned ones, and
        # the place.
        linear = up_to(len(self.scales))
        context = linear + up_to(NEAR_SCALES)
        place = context + learned * channels * LEARNED
        placed = [
            *range(linear + up_to(LINEAR_SCALES)),
            *range(context, place + position * POSITION_CHANNELS),
        ]
        near = [*range(up_to(NEAR_SCALES)), *range(linear, context)]
        self.placed = VoxelNetwork(placed, n_classes, units)
        self.near = VoxelNetwork(near, n_classes, units)

    @property
    def filters(self) -> tuple[object, ...]:
        """What decides its features: those of equal filters are equal."""
        return self.scales, self.voxel, self.position, self.learned is not None

    @property
    def reach(self) -> Triple:
        """Voxels (z, y, x) that its filters see on each side."""
        return filters_reach(self.scales, self.voxel, self.learned is not None)

    @property
    def alignment(self) -> Triple:
        """Multiples of voxels (z, y, x) at which a block must begin in its volume."""
        return filters_alignment(self.scales, self.voxel, self.learned is not None)

    def responses(self, image: Tensor, core: Region) -> list[Tensor]:
        """Filter responses (B, F, z, y, x) of a core of an image (B, C, Z, Y, X), in parts.

        Position channels follow as they are.
        """
        gray, place = image[:, : self.channels], image[:, self.channels :]
        learned = [] if self.learned is None else [self.learned.responses(gray, core)]
        fixed = self.fixed_responses(gray, core)
        return [*fixed, *learned, place[(slice(None), slice(None), *core)]]

    def fixed_responses(self, gray: Tensor, core: Region) -> Iterator[Tensor]:
        """Yield filter responses (B, F, z, y, x) of standardized gray values (B, C, Z, Y, X).

        Also of the gray values without their bend: bent, what is faint is seen; unbent,
        edges stay where they are. Learned filters come after these.
        """
        linear = gray.clamp(max=BRIGHTEST).sinh()
        yield from filter_bank(gray, self.scales, self.voxel, core)
        yield from filter_bank(linear, self.scales[:NEAR_SCALES], self.voxel, core)

    def forward(self, features: Tensor) -> Tensor:
        """Map responses (N, F) to the logits of each opinion (E, N, K)."""
        return torch.stack([self.placed(features), self.near(features)])

    @torch.no_grad()
    def over(self, responses: Sequence[Tensor]) -> Tensor:
        """Map responses (B, F, Z, Y, X) in parts to logits (E, B, K, Z, Y, X), plane by plane.

        For prediction: as if in evaluation mode, and without gradients.
        """
        features = sum(part.shape[1] for part in responses)
        return by_plane([o.matrices(features) for o in (self.placed, self.near)], responses)


def by_plane(
    opinions: Sequence[Sequence[tuple[Tensor, Tensor]]], features: Sequence[Tensor]
) -> Tensor:
    """Map features (B, F, Z, Y, X) in parts through the layers of each opinion.

    Returns
    -------
    float (E, B, K, Z, Y, X)
        Logits.
    """
    planes = []
    # Features in one piece, and hidden units, of a whole block at once would take gigabytes.
    for parts in zip(*(f.unbind(2) for f in features), strict=True):
        plane = torch.cat(parts, 1).flatten(2)
        logits = torch.stack([multiplied(layers, plane) for layers in opinions])
        planes.append(logits.reshape(*logits.shape[:3], *parts[0].shape[2:]))
    return torch.stack(planes, 3)


def multiplied(layers: Sequence[tuple[Tensor, Tensor]], features: Tensor) -> Tensor:
    """Map features (B, F, N), as filters leave them, through layers to logits (B, K, N)."""
    (weight, bias), *rest = layers

    def product(weight: Tensor, values: Tensor) -> Tensor:
        # Batched by hand: a matrix times a batch would transpose the batch.
        return torch.bmm(weight.expand(len(values), -1, -1), values)

    values = product(weight, features).add_(bias)
    for weight, bias in rest:
        values = product(weight, values.relu_()).add_(bias)
    return values


def filters_reach(scales: Sequence[float], voxel: Sequence[float], learned: bool) -> Triple:
    """Voxels (z, y, x) that a pixel classifier's filters see on each side."""
    fixed = widest_reach(scales, voxel)
    return each(max, fixed, learned_reach(voxel)) if learned else fixed


def filters_alignment(scales: Sequence[float], voxel: Sequence[float], learned: bool) -> Triple:
    """Multiples of voxels (z, y, x) at which a block of a volume must begin to be filtered."""
    fixed = alignment(scales, voxel)
    return each(math.lcm, fixed, learned_alignment(voxel)) if learned else fixed


@dataclass(frozen=True, eq=False)
class VoxelBatch(Batch):
    """Labeled voxels of a step, and others that are only guessed.

    Attributes
    ----------
    image : float32 (N + M, F)
        Features, those of the labeled voxels first.
    target : int64 (N,)
        Class index of the labeled ones.
    guesses : float32 (M, K)
        How likely each class is of the others.
    """

    guesses: Tensor


def draw_voxels(
    labeled: tuple[Tensor, Tensor],
    guessed: tuple[Tensor, Tensor] | None,
    generator: torch.Generator,
) -> VoxelBatch:
    """Draw voxels for a step.

    Parameters
    ----------
    labeled : features float32 (N, F), classes int64 (N,)
    guessed : features float32 (M, F), probabilities float32 (M, K), or None
    """
    features, target = draw_rows(*labeled, VOXELS_A_STEP, generator)
    if guessed is None:
        return VoxelBatch(features, target, features[:0])
    others, guesses = draw_rows(*guessed, GUESSES_A_STEP, generator)
    return VoxelBatch(torch.cat([features, others]), target, guesses)


def draw_rows(
    features: Tensor, said: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw voxels, with what is said of each."""
    index = torch.randint(len(said), (count,), generator=generator).to(said.device)
    return features[index], said[index]


def pixel_stage(
    training: TrainingConfig,
    pool: Pool,
    pixels_of: Callable[[M], PixelClassifier],
    tiles_of: Callable[[PoolCase], TileGrid] | None = None,
) -> Stage[M]:
    """Train the pixel classifier of a network: cross-entropy on labeled voxels' responses.

    Parameters
    ----------
    pixels_of : callable (module) -> PixelClassifier
        Finds it in the network.
    tiles_of : callable (case) -> tiles, optional
        Of a volume, from some of which voxels are drawn that nobody need have painted: it learns
        what a random forest guesses of them, too.
    """
    found: list[tuple[Tensor, Tensor]] = []
    guessed: list[tuple[Tensor, Tensor]] = []
    class_weights = pool_weights(training, pool)

    def prepare(module: M) -> Iterator[float]:
        # Where memory is counted on volumes without values, nothing is guessed: a tile is
        # filtered for its prediction, too, and trees take little.
        guessing = tiles_of is not None and pool.device.type != "meta"
        pixels, parts = pixels_of(module), []
        for done, block, features in labeled_responses(pool, pixels):
            trained = ~block.held_out
            parts.append((features[trained], block.classes[trained].to(pool.device)))
            yield done / 2 if guessing else done
        found[:] = [(torch.cat([f for f, _ in parts]), torch.cat([c for _, c in parts]))]
        if tiles_of is None or not guessing:
            return
        drawn: list[Tensor] = []
        for case in pool.cases:
            seen = case, pixels, tiles_of(case), pool.device
            for done in see_anywhere(*seen):
                yield 0.5 + 0.25 * (len(drawn) + done) / len(pool.cases)
            drawn.append(seen_anywhere(*seen)[1])
        others = torch.cat(drawn)
        for done, guesses in guess(*found[0], others, class_weights, training.seed):
            guessed[:] = [(others, guesses)]
            yield 0.75 + done / 4

    def sample(generator: torch.Generator) -> VoxelBatch:
        return draw_voxels(found[0], guessed[0] if guessed else None, generator)

    def loss(module: M, batch: VoxelBatch, step: int) -> Tensor:
        every = pixels_of(module)(batch.image)
        labeled, others = every.split([len(batch.target), len(batch.guesses)], 1)
        target = batch.target.repeat(len(every))
        value = cross_entropy(labeled.flatten(0, 1), target, class_weights)
        if not len(batch.guesses):
            return value
        guesses = batch.guesses.repeat(len(every), 1)
        weight = (1 - pool.strokes) * GUESS_WEIGHT + pool.strokes * STROKE_GUESS_WEIGHT
        return value + weight * functional.cross_entropy(others.flatten(0, 1), guesses)

    return Stage(
        name="pixels",
        instant=True,
        prepare=prepare,
        sample=sample,
        loss=loss,
        optimizer=partial(make_optimizer, training, 1e-2, weight_decay=WEIGHT_DECAY),
        parameters=lambda module: pixels_of(module).parameters(),
        schedule=schedule_of(training),
        # In a training by time it comes first, for it is of use at once: at most half.
        share=0.5,
        most_steps=0 if training.steps else pixel_steps(sum(pool.counts)),
    )


def pixel_steps(labeled: int) -> int:
    """Return the steps of a training by time with so many labeled voxels."""
    return round(STEPS * min(max(1.0, labeled / STEPS_FOR), MOST_VOXELS / STEPS_FOR))
