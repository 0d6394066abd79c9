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
from napari_volseg.sparse.pixel_stage import STEPS, STEPS_FOR, pixel_stage, pixel_steps
from napari_volseg.sparse.pixels import PixelClassifier
from napari_volseg.sparse.pool import build_pool

RARE = 3


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
        own = PixelClassifier(1, 2, (1.0, 4.0), (1.0, 1.0, 1.0), position=True)
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
