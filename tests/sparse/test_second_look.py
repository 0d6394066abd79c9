from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.tiles import whole_region
from napari_volseg.data.volume import Volume
from napari_volseg.sparse import second_look
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.labeled_blocks import labeled_responses
from napari_volseg.sparse.pixels import PixelClassifier
from napari_volseg.sparse.pool import Pool, build_pool
from napari_volseg.sparse.second_look import (
    HALVES,
    MAPS,
    SecondLook,
    drawn_groups,
    half_of,
    labeled_maps,
    second_stage,
)

VOXEL = (2.0, 1.0, 1.0)
SHAPE = (24, 61, 52)
N_CLASSES = 3


def pool_of(held_out: float = 0.3) -> Pool:
    labels = np.zeros(SHAPE, np.uint8)
    labels[5] = 1
    labels[:, 17] = 2
    labels[:, :, 40] = 3
    image = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    case = Case(Volume(image, VOXEL), Annotation(labels))
    return build_pool((case,), TrainingConfig(held_out=held_out), torch.device("cpu"))


def parts() -> tuple[PixelClassifier, SecondLook]:
    torch.manual_seed(0)
    pixels = PixelClassifier(1, N_CLASSES, (1.0, 4.0), VOXEL)
    return pixels, SecondLook(len(pixels.placed.columns), N_CLASSES, VOXEL)


def stage_of(pool: Pool):
    return second_stage(
        TrainingConfig(steps=100),
        pool,
        lambda module: (module[0], module[1]),
        # What is found at a voxel tells where it is, and so which voxel a row is of.
        lambda module, case, region: torch.stack(
            torch.meshgrid(*(torch.arange(s.start, s.stop) / 1.0 for s in region), indexing="ij")
        ),
        (0, 0, 0),
        SHAPE,
        1.0,
        no_looks,
    )


def likely() -> torch.Tensor:
    """How likely each class is said to be, anywhere in the volume."""
    logits = torch.randn((N_CLASSES, *SHAPE), generator=torch.Generator().manual_seed(1))
    return (3 * logits).softmax(0)


def no_looks(module, most_read, again):
    """What ``second_stage`` is told to look by, where nothing is judged."""
    return iter(())


@pytest.mark.parametrize("tile", [(24, 64, 64), (8, 16, 16)])
@pytest.mark.parametrize("apart", [False, True])
def test_around_paint_is_seen_what_is_seen_in_the_whole_volume(tile, apart):
    pool, (pixels, second) = pool_of(), parts()
    found = likely()
    blocks = [block for _, block, _ in labeled_responses(pool, pixels)]
    cells = torch.nn.functional.avg_pool3d(found[None], second.cells, ceil_mode=True)
    whole = second.spread(cells, whole_region(SHAPE))[0]
    seen = 0
    together = [[block] for block in blocks] if apart else [blocks]
    drawn = [g for some in together for g in drawn_groups(some, second, (0, 0, 0), 10**9)]
    assert len(drawn) == len(blocks) if apart else len(drawn) < len(blocks)
    for _, complete in labeled_maps(
        drawn, second, lambda case, region: found[(slice(None), *region)], tile
    ):
        for block, maps in complete:
            z, y, x = block.voxels.T
            torch.testing.assert_close(maps, whole[:, z, y, x].T)
            seen += len(maps)
    assert seen == sum(len(block.voxels) for block in blocks)


def test_of_many_blocks_some_are_drawn_until_every_class_has_enough(monkeypatch):
    blocks = [block for _, block, _ in labeled_responses(pool_of(), parts()[0])]
    _, second = parts()
    every = drawn_groups(blocks, second, (4, 8, 8), 10**9)
    assert sum(len(group) for _, group in every) == len(blocks)
    monkeypatch.setattr("napari_volseg.sparse.second_look.FEWEST_VOXELS", 1)
    few = drawn_groups(blocks, second, (4, 8, 8), 1)
    drawn = [block for _, group in few for block in group]
    assert len(drawn) < len(blocks)
    assert set(torch.cat([b.classes for b in drawn]).tolist()) == set(range(N_CLASSES))


def test_each_half_is_trained_on_all_but_what_the_other_holds_out():
    pool, (pixels, second) = pool_of(), parts()
    stage = stage_of(pool)
    assert list(stage.prepare(torch.nn.ModuleList([pixels, second])))[-1] == 1
    (case,) = pool.cases
    blocks = [block for _, block, _ in labeled_responses(pool, pixels)]
    own = {half: int(sum((half_of(block) == half).sum() for block in blocks)) for half in (0, 1)}
    assert min(own.values()) > 50
    usable = len(case.labeled()[0])
    drawn = [
        torch.cat([stage.sample(torch.Generator().manual_seed(n)).image[half] for n in range(40)])
        for half in range(HALVES)
    ]
    for half, rows in enumerate(drawn):
        assert len(rows.unique(dim=0)) == usable + own[half]
    one, other = ({tuple(row) for row in rows.unique(dim=0).tolist()} for rows in drawn)
    assert len(one & other) == usable


def test_it_is_left_out_where_too_little_of_the_paint_can_be_looked_around(monkeypatch):
    pool, (pixels, second) = pool_of(), parts()
    monkeypatch.setattr(second_look, "neighbors", lambda blocks, *_: [[b] for b in blocks])
    monkeypatch.setattr(second_look, "FEWEST_VOXELS", 1)
    monkeypatch.setattr(second_look, "MOST_READ", 1)
    monkeypatch.setattr(second_look, "LEAST_COVER", 0.95)
    stage = stage_of(pool)
    module = torch.nn.ModuleList([pixels, second])
    list(stage.prepare(module))
    optimizer = stage.optimizer(stage.parameters(module))
    before = [weight.clone() for weight in second.parameters()]
    assert stage.schedule(0.0, []) == 0
    loss = stage.loss(module, stage.sample(torch.Generator()), 0)
    loss.backward()
    assert loss == 0 and not any(weight.grad.any() for weight in second.parameters())
    for group in optimizer.param_groups:
        group["lr"] *= stage.schedule(0.0, [])
    optimizer.step()
    assert all(map(torch.equal, before, second.parameters())) and not second.trained
    monkeypatch.setattr(second_look, "LEAST_COVER", 0.01)
    list(stage.prepare(module))
    assert stage.schedule(0.5, []) > 0
    assert stage.loss(module, stage.sample(torch.Generator()), 0) > 0


def test_it_says_nothing_before_it_is_trained():
    pixels, second = parts()
    pixels.eval()
    assert not second.trained
    image = torch.randn(1, 1, 8, 16, 16)
    responses = pixels.responses(image, whole_region((8, 16, 16)))
    maps = torch.rand(1, MAPS * N_CLASSES, 8, 16, 16)
    assert not second.over(pixels, responses, maps).any()


def test_over_volumes_it_is_what_it_is_for_each_voxel():
    pixels, second = parts()
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.normal_(std=0.3)
        pixels.placed.normalize.running_mean.normal_()
    pixels.eval()
    assert second.trained
    image = torch.randn(2, 1, 8, 16, 16)
    responses = pixels.responses(image, whole_region((8, 16, 16)))
    maps = torch.rand(2, MAPS * N_CLASSES, 8, 16, 16)
    with torch.no_grad():
        over = second.over(pixels, responses, maps)
        features = pixels.placed.normalized(torch.cat(responses, 1).movedim(1, -1).flatten(0, 3))
        rows = torch.cat([features, maps.movedim(1, -1).flatten(0, 3)], 1)
        expected = second(rows.expand(HALVES, -1, -1))
    assert over.shape == (HALVES, 2, N_CLASSES, 8, 16, 16)
    found = over.movedim(2, -1).flatten(1, 4)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
