"""How the pixel classifier is trained: on voxels that were painted, and on guesses of others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_volseg.sparse.anywhere import see_anywhere, seen_anywhere
from napari_volseg.sparse.forest import guess
from napari_volseg.sparse.labeled_blocks import MOST_VOXELS, labeled_responses
from napari_volseg.sparse.losses import cross_entropy
from napari_volseg.sparse.optimizer import make_optimizer
from napari_volseg.sparse.patches import pool_weights
from napari_volseg.sparse.stage import Batch, Stage, schedule_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_volseg.data.tiles import TileGrid
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.pixels import PixelClassifier
    from napari_volseg.sparse.pool import Pool, PoolCase

M = TypeVar("M", bound=nn.Module)

STEPS = 600
"""In a training by time; with weight decay, more change nothing."""

FIRST_STEPS = 150
"""For a first answer, before anything is guessed: what is seen anywhere takes some seconds, of a
large volume ten."""

FIRST_PART = 0.4
"""Of the classifier's time, at most: filtering what is labeled takes longer than these steps."""

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


@dataclass(eq=False)
class SeenVoxels:
    """The voxels that a classifier learns from, once they were filtered.

    Attributes
    ----------
    labeled : features float32 (N, F), classes int64 (N,)
    guessed : features float32 (M, F), probabilities float32 (M, K)
    """

    labeled: tuple[Tensor, Tensor] | None = None
    guessed: tuple[Tensor, Tensor] | None = None


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


def pixel_stages(
    training: TrainingConfig,
    pool: Pool,
    pixels_of: Callable[[M], PixelClassifier],
    tiles_of: Callable[[PoolCase], TileGrid],
) -> tuple[Stage[M], Stage[M]]:
    """Train the pixel classifier of a network: for a first answer, then as well as may be.

    See ``pixel_stage``. Both learn from the same labeled voxels, which are filtered once.
    """
    seen = SeenVoxels()
    first = pixel_stage(training, pool, pixels_of, seen=seen)
    last = pixel_stage(training, pool, pixels_of, tiles_of, seen)
    steps = min(first.most_steps, FIRST_STEPS)
    share = FIRST_PART * last.share
    return (
        replace(first, name="first pixels", share=share, most_steps=steps),
        replace(last, share=last.share - share),
    )


def pixel_stage(
    training: TrainingConfig,
    pool: Pool,
    pixels_of: Callable[[M], PixelClassifier],
    tiles_of: Callable[[PoolCase], TileGrid] | None = None,
    seen: SeenVoxels | None = None,
) -> Stage[M]:
    """Train the pixel classifier of a network: cross-entropy on labeled voxels' responses.

    Parameters
    ----------
    pixels_of : callable (module) -> PixelClassifier
        Finds it in the network.
    tiles_of : callable (case) -> tiles, optional
        Of a volume, from some of which voxels are drawn that nobody need have painted: it learns
        what a random forest guesses of them, too.
    seen : SeenVoxels, optional
        Where the voxels are kept: what another stage has left there is not filtered again.
    """
    seen = seen or SeenVoxels()
    class_weights = pool_weights(training, pool)

    if pool.device.type == "meta":
        # Where memory is counted on volumes without values, nothing is guessed: a tile is
        # filtered for its prediction, too, and trees take little.
        tiles_of = None

    def prepare(module: M) -> Iterator[float]:
        pixels = pixels_of(module)
        if seen.labeled is None:
            parts = []
            for done, block, features in labeled_responses(pool, pixels):
                trained = ~block.held_out
                parts.append((features[trained], block.classes[trained].to(pool.device)))
                yield done / 2 if tiles_of else done
            seen.labeled = torch.cat([f for f, _ in parts]), torch.cat([c for _, c in parts])
        if tiles_of is None:
            return
        drawn: list[Tensor] = []
        for case in pool.cases:
            asked = case, pixels, tiles_of(case), pool.device
            for done in see_anywhere(*asked):
                yield 0.5 + 0.25 * (len(drawn) + done) / len(pool.cases)
            drawn.append(seen_anywhere(*asked)[1])
        others = torch.cat(drawn)
        for done, guesses in guess(*seen.labeled, others, class_weights, training.seed):
            seen.guessed = others, guesses
            yield 0.75 + done / 4

    def sample(generator: torch.Generator) -> VoxelBatch:
        assert seen.labeled is not None, "prepared before it is sampled"
        return draw_voxels(seen.labeled, seen.guessed, generator)

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
