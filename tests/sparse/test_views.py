"""Whole volumes, resized and deformed: their labels stay on what they name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.intensity import Window
from napari_volseg.data.volume import Volume
from napari_volseg.sparse.augment import deformed_positions, patch_positions
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.pool import build_pool
from napari_volseg.sparse.views import View, augment, find_points, read_at, view_of


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_no_label_is_lost_where_the_volume_shrinks():
    """Nor moved: a ramp, resized, reads at a label what it was there."""
    shape = (9, 40, 30)
    ramp = np.indices(shape)[1].astype(np.float32)
    labels = np.zeros(shape, np.uint8)
    labels[5], labels[:, 20] = 1, 2
    case = Case(Volume(ramp[None], (4.0, 1.0, 1.0)), Annotation(labels))
    # A straight ramp: of what is painted alone, a window would bend it.
    config, device = TrainingConfig(held_out=0), torch.device("cpu")
    pool = build_pool([case], config, device, windows=(Window(),))
    view = view_of(pool.cases[0], (9, 10, 6), torch.device("cpu"))
    assert view.image.shape == (1, 9, 10, 6)
    assert view.spacing == (4.0, 4.0, 5.0)
    assert torch.bincount(view.target).tolist() == list(pool.counts)
    voxels = torch.from_numpy(np.concatenate(pool.cases[0].voxels))
    inner = (voxels[:, 1] > 3) & (voxels[:, 1] < 36)
    z, y, x = voxels[inner].long().T
    expected = pool.cases[0].standardized[0, z, y, x]
    assert (read_at(view.image, view.points)[inner, 0] - expected).abs().max() < 0.1


def coordinates(shape: tuple[int, int, int]) -> torch.Tensor:
    """An image whose three channels tell where a voxel is."""
    return patch_positions(shape, (torch.tensor(shape) - 1) / 2).movedim(-1, 0)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("shape", [(24, 40, 36), (5, 40, 36), (1, 30, 33)])
def test_labels_follow_the_deformed_image(shape, flips):
    image = coordinates(shape)
    points = image.flatten(1).T[::7].contiguous()
    view = View(image, points, torch.arange(len(points)), (2.0, 1.0, 1.0))
    training = TrainingConfig(augmentation=1, flips=flips, gray_value=0)
    for seed in range(4):
        seen = augment(view, training, generator(seed))
        shown = read_at(seen.image, seen.points)
        assert len(shown) > 0.3 * len(points)
        assert not torch.equal(seen.points, points[seen.target])
        assert (shown - points[seen.target]).abs().max() < 1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [(40, 56, 56), (5, 40, 36), (1, 50, 50)])
def test_what_a_deformed_view_shows_is_found_in_it(shape, seed):
    last = torch.tensor(shape) - 1.0
    spacing = (2.0, 1.0, 1.0)
    positions = deformed_positions(shape, last / 2, spacing, TrainingConfig(), generator(seed))
    expected = torch.rand(2000, 3, generator=generator(seed)) * last
    places, found = find_points(read_at(positions.movedim(-1, 0), expected), positions)
    assert found.float().mean() > 0.99
    assert (places - expected)[found].norm(dim=1).quantile(0.95) < 0.25


def test_points_beyond_the_view_are_not_found():
    shape = (12, 20, 20)
    center = torch.tensor([6.0, 10.0, 10.0])
    positions = deformed_positions(shape, center, (1.0, 1.0, 1.0), TrainingConfig(), generator(1))
    far = torch.tensor([[40.0, 10.0, 10.0], [6.0, -30.0, 10.0], [6.0, 10.0, 10.0]])
    _, found = find_points(far, positions)
    assert found.tolist() == [False, False, True]
