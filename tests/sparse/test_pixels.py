from __future__ import annotations

import numpy as np
import torch

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.tiles import tile_grid
from napari_volseg.data.volume import Volume
from napari_volseg.review.between import take_steps
from napari_volseg.sparse.anywhere import seen_anywhere
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.forest import guess
from napari_volseg.sparse.labeled_blocks import labeled_responses
from napari_volseg.sparse.learned_filters import LEARNED
from napari_volseg.sparse.pixels import (
    STEPS,
    STEPS_FOR,
    PixelClassifier,
    pixel_stage,
    pixel_steps,
)
from napari_volseg.sparse.pool import build_pool
from napari_volseg.sparse.position import with_region_position

SCALES = (1.0, 4.0)
VOXEL = (2.0, 1.0, 1.0)
RARE = 3


def classifier(learned: bool = False) -> PixelClassifier:
    return PixelClassifier(1, 3, SCALES, VOXEL, position=True, learned=learned)


def test_one_opinion_sees_neither_the_place_nor_what_is_far():
    scales = (1.0, 2.0, 4.0, 8.0, 16.0)
    both = PixelClassifier(1, 3, scales, VOXEL, position=True).eval()
    region = tuple(slice(0, n) for n in (16, 32, 32))
    image = torch.randn(1, 1, 16, 32, 32, generator=torch.Generator().manual_seed(0))

    def logits(shape: tuple[int, int, int], image: torch.Tensor) -> torch.Tensor:
        placed = with_region_position(image[0], region, shape)[None]
        return both.over(both.responses(placed, region)).detach()

    here, elsewhere = logits((16, 32, 32), image), logits((99, 99, 99), image)
    assert here.shape == (2, 1, 3, 16, 32, 32)
    assert not torch.allclose(here[0], elsewhere[0])
    torch.testing.assert_close(here[1], elsewhere[1])
    seen = [len(opinion.columns) for opinion in (both.placed, both.near)]
    assert seen == [1 + 5 * 5 + 1 + 5 * 2 + 3, 1 + 4 * 5 + 1 + 4 * 5]


def test_only_the_opinion_that_knows_the_place_sees_learned_filters():
    without, both = classifier(), classifier(learned=True)
    assert len(both.near.columns) == len(without.near.columns)
    assert len(both.placed.columns) == len(without.placed.columns) + LEARNED
    region = tuple(slice(0, n) for n in (8, 16, 16))
    image = torch.randn(1, 1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    placed = with_region_position(image[0], region, (8, 16, 16))[None]
    responses = both.responses(placed, region)
    expected = torch.cat(without.responses(placed, region), 1)
    learned = both.learned.responses(image, region)
    # The place comes last, whatever comes before.
    parts = (expected[:, :-3], learned, expected[:, -3:])
    torch.testing.assert_close(torch.cat(responses, 1), torch.cat(parts, 1))


def test_an_opinion_is_the_same_of_voxels_in_rows_and_of_a_block():
    both = classifier().eval()
    features = torch.randn(1, both.placed.columns.numel(), 2, 3, 4)
    rows = both(features.flatten(2)[0].T)
    torch.testing.assert_close(both.over(features.split(7, 1)).flatten(3)[:, 0], rows.movedim(1, 2))


def test_more_paint_takes_more_steps():
    assert pixel_steps(10) == pixel_steps(STEPS_FOR) == STEPS
    assert pixel_steps(2 * STEPS_FOR) == 2 * STEPS
    assert pixel_steps(100 * STEPS_FOR) == pixel_steps(1000 * STEPS_FOR) < 10 * STEPS


def test_of_what_nobody_painted_it_learns_what_a_forest_guesses():
    """What lies beyond the painted slices is another tissue; as sure as of paint it cannot be."""
    shape, config = (20, 40, 40), TrainingConfig(held_out=0, steps=60)
    random = np.random.default_rng(0)
    labels = np.zeros(shape, np.uint8)
    labels[3:8:2] = 1 + (random.random((3, 40, 40)) < np.linspace(0.1, 0.6, 3)[:, None, None])
    image = random.normal(size=(1, *shape)).astype(np.float32)
    image[0, 10:] += 4 * random.random((10, 40, 40))
    pool = build_pool([Case(Volume(image), Annotation(labels))], config, torch.device("cpu"))

    def tiles(case):
        return tile_grid(case.volume.shape, (16, 32, 32))

    def trained(tiles_of):
        torch.manual_seed(0)
        own = PixelClassifier(1, 2, SCALES, (1.0, 1.0, 1.0), position=True)
        stage = pixel_stage(config, pool, lambda module: module, tiles_of)
        done = list(stage.prepare(own))
        assert done == sorted(done) and done[-1] == 1
        for _ in take_steps(own, stage, config):
            pass
        return own.eval()

    guessed, unaware = trained(tiles), trained(None)
    _, others = seen_anywhere(pool.cases[0], guessed, tiles(pool.cases[0]), pool.device)
    found = [(block.classes, features) for _, block, features in labeled_responses(pool, guessed)]
    classes, features = (torch.cat(parts) for parts in zip(*found, strict=True))
    *_, (_, likely) = guess(features, classes, others, torch.ones(2), config.seed)

    def off(own):
        with torch.no_grad():
            return (own(others).softmax(2) - likely).abs().mean()

    assert off(guessed) < 0.8 * off(unaware)
