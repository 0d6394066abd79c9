from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_volseg.sparse.points import REDRAWS, PointPlan, boundary, displace, sample_points
from napari_volseg.sparse.stage import IGNORE


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def half_and_half(shape=(40, 40, 40), at=20) -> torch.Tensor:
    """Everything is labeled: class 1 from y = ``at`` on."""
    target = torch.zeros(shape, dtype=torch.long)
    target[:, at:] = 1
    return target


def classes_at(target: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    return target[tuple(points.T)]


def test_the_boundary_is_where_labeled_neighbors_differ():
    target = torch.full((3, 1, 6), IGNORE)
    target[1, 0] = torch.tensor([0, 0, 1, IGNORE, 2, 2])
    found = boundary(target)
    assert found[1, 0].tolist() == [False, True, True, False, False, False]
    assert not found[[0, 2]].any()


@given(seed=st.integers(0, 40))
def test_points_are_labeled_voxels_whatever_is_painted(seed):
    random = generator(seed)
    target = torch.randint(0, 3, (6, 9, 11), generator=random)
    target[torch.rand(target.shape, generator=random) < 0.9] = IGNORE
    target[0, 0, 0] = 1
    points = sample_points(target, PointPlan(200, 0.5, (5, 5, 5)), random)
    assert points.shape == (200, 3)
    assert (classes_at(target, points) != IGNORE).all()


def test_the_asked_part_comes_from_the_boundary_at_the_asked_distance():
    target = half_and_half()
    points = sample_points(target, PointPlan(8000, 0.75, (5, 2, 5)), generator())
    near, uniform = points[:6000, 1].float(), points[6000:, 1].float()
    assert (near - 19.5).std() == pytest.approx(2, rel=0.1)
    assert uniform.std() == pytest.approx(40 / 12**0.5, rel=0.05)
    assert near.mean() == pytest.approx(19.5, abs=0.2)


def test_without_displacement_points_stay_on_the_boundary():
    target = half_and_half()
    points = sample_points(target, PointPlan(100, 1.0, (0, 0, 0)), generator())
    assert set(points[:, 1].tolist()) == {19, 20}


def test_on_a_slice_points_spread_within_it():
    """Displacements out of the slice are drawn again: within it, they are the asked ones."""
    target = torch.full((40, 60, 60), IGNORE)
    target[20] = half_and_half((1, 60, 60), at=30)[0]
    points = sample_points(target, PointPlan(4000, 1.0, (5, 5, 5)), generator())
    assert (points[:, 0] == 20).all()
    # All but those that found no way within REDRAWS tries (one in twelve succeeds).
    left = (1 - 0.0797) ** REDRAWS
    assert (points[:, 1] - 29.5).float().std() == pytest.approx(5 * (1 - left) ** 0.5, rel=0.08)


def test_a_point_that_finds_no_labeled_voxel_stays():
    labeled = torch.zeros(9, 9, 9, dtype=torch.bool)
    labeled[4, 4, 4] = True
    start = torch.tensor([[4, 4, 4]] * 20)
    assert torch.equal(displace(start, labeled, (50, 50, 50), generator()), start)


def test_a_patch_of_one_class_or_without_labels_still_gives_points():
    plan = PointPlan(50, 0.5, (5, 5, 5))
    one = torch.full((4, 5, 6), IGNORE)
    one[2] = 1
    assert (classes_at(one, sample_points(one, plan, generator())) == 1).all()
    nothing = torch.full((4, 5, 6), IGNORE)
    points = sample_points(nothing, plan, generator())
    assert points.shape == (50, 3)
    assert (classes_at(nothing, points) == IGNORE).all()


def test_the_same_generator_gives_the_same_points():
    plan = PointPlan(64, 0.5, (5, 5, 5))
    one, two, other = (sample_points(half_and_half(), plan, generator(s)) for s in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
