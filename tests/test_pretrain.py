"""The script that makes the learned filters, and the scenes that it draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_volseg.sparse import learned_filters
from napari_volseg.sparse.learned_filters import LearnedFilters, learned_weights
from resources.pretrain import Learner, Pairs, interpolated, ridge_regression, written
from resources.scenes import FEWEST_PAINTED, GRIDS, draw_tasks


@pytest.mark.parametrize("grid", range(len(GRIDS)))
def test_a_scene_asks_only_for_what_is_painted(grid):
    tasks = [task for seed in range(4) for task in draw_tasks(seed, grid, 3)]
    assert tasks
    for task in tasks:
        assert task.image.shape == task.target.shape == task.painted.shape == GRIDS[grid][0]
        assert np.isfinite(task.image).all()
        asked = task.target[task.target >= 0]
        counts = np.bincount(task.target[task.painted & (task.target >= 0)])
        assert len(counts) == asked.max() + 1 >= 2
        assert (counts >= FEWEST_PAINTED).all()
        assert not task.painted.all()


def test_a_scene_is_the_same_again_and_another_seed_another():
    first, again, other = (draw_tasks(seed, 0, 1) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first[0].image, again[0].image)
    np.testing.assert_array_equal(first[0].painted, again[0].painted)
    assert not other or not np.array_equal(first[0].image, other[0].image)


def test_the_filters_that_are_written_are_those_that_were_learned(monkeypatch):
    torch.manual_seed(0)
    learner = Learner()
    for name, value in learner.unet.state_dict().items():
        if "running" in name or name.endswith(("weight", "bias")):
            value.copy_(torch.rand_like(value) * 0.5 + 0.1 * ("var" in name))
    weights = written(learner.unet.state_dict())
    assert {k: v.shape for k, v in weights.items()} == {
        k: v.shape for k, v in learned_weights().items()
    }
    monkeypatch.setattr(learned_filters, "learned_weights", lambda: weights)
    image = torch.randn(1, 1, 8, 12, 12)
    with torch.no_grad():
        expected = learner.unet.eval().features(image)
    found = LearnedFilters((1.0, 1.0, 1.0)).unet(image)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_steps_make_the_loss_of_a_pair_smaller():
    torch.manual_seed(0)
    grid, *examples = next(iter(Pairs()))
    learner = Learner()
    optimizer = torch.optim.AdamW(learner.parameters(), lr=4e-3)
    losses = []
    for _ in range(8):
        torch.manual_seed(1)
        loss, iou = learner(grid, examples)
        assert 0 <= iou <= 1
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_ridge_regression_finds_what_is_linear():
    features = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    target = (features[:, 2] > 1).long()
    weights = ridge_regression(features, target, 2, torch.tensor(1e-3))
    assert weights.shape == (5, 2)
    said = torch.cat([features, torch.ones(500, 1)], 1) @ weights
    assert (said.argmax(1) == target).float().mean() > 0.9
    assert weights[:4, 1].abs().argmax() == 2


def test_a_coarse_grid_is_interpolated_as_the_filters_do():
    coarse = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    voxels = torch.tensor([[0, 0, 0], [3, 9, 11], [7, 4, 2]])
    whole = learned_filters.refined(
        coarse[None], (2, 2, 2), tuple(slice(0, 2 * n) for n in (4, 5, 6))
    )
    z, y, x = voxels.T
    torch.testing.assert_close(interpolated(coarse, voxels, (8, 10, 12)), whole[0, :, z, y, x].T)
