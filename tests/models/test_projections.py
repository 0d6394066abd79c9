"""Projections and backprojections: adjoint to each other, complete, and in proportion."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_volseg.models.projections import (
    Detector,
    backproject,
    draw_directions,
    invert_mean,
    project,
)

shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))
voxels = st.sampled_from([(1.0, 1.0), (2.0, 1.0), (1.0, 3.7)])
angles = st.lists(st.integers(0, 359), min_size=1, max_size=3)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@given(shape=shapes, voxel=voxels, degrees=angles)
def test_the_mean_projection_and_the_backprojection_are_adjoint(shape, voxel, degrees):
    detector = Detector(shape, voxel)
    x, y = noise(2, 3, 2, *shape), noise(2, 3, len(degrees), 2, detector.width, seed=1)
    scale = math.prod(voxel) / detector.diagonal
    projected = (project(x, degrees, detector, "mean") * y).sum()
    backprojected = (x * backproject(y, degrees, detector)).sum()
    torch.testing.assert_close(projected, backprojected * scale)


def test_the_gradient_of_the_backprojection():
    detector = Detector((3, 4), (1.5, 1.0))
    maps = noise(1, 2, 2, 1, detector.width).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: backproject(m, (10.0, 75.0), detector), maps)


@given(shape=shapes, voxel=voxels, degree=st.integers(0, 359), place=st.integers(0, 80))
def test_no_voxel_is_lost_from_any_direction(shape, voxel, degree, place):
    detector = Detector(shape, voxel)
    image = torch.zeros(1, 1, 1, *shape)
    image.view(-1)[place % image.numel()] = 2
    brightest = project(image, [degree], detector, "maximum")
    assert brightest.max() == 2
    mean = project(image, [degree], detector, "mean")
    area = math.prod(voxel)
    torch.testing.assert_close(mean.sum() * detector.diagonal, torch.tensor(2 * area))


@pytest.mark.parametrize("projection", ["maximum", "mean"])
def test_long_voxels_are_seen_as_what_they_stand_for(projection):
    image = noise(1, 2, 3, 4, 7)
    long = project(image, (0, 33, 90, 140), Detector((4, 7), (3.0, 1.0)), projection)
    fine = image.repeat_interleave(3, 3)
    seen = project(fine, (0, 33, 90, 140), Detector((12, 7), (1.0, 1.0)), projection)
    torch.testing.assert_close(long, seen)


@given(shape=shapes)
def test_along_an_axis_the_maximum_is_that_of_the_axis(shape):
    detector = Detector(shape, (1.0, 1.0))
    image = noise(1, 1, 2, *shape)
    for degree, axis in ((0, 3), (90, 4)):
        expected = image.amax(axis)[:, :, None]
        count = expected.shape[-1]
        start = (detector.width - count + 1) // 2
        seen = project(image, [degree], detector, "maximum")
        torch.testing.assert_close(seen[..., start : start + count], expected)
        beyond = torch.cat([seen[..., :start], seen[..., start + count :]], -1)
        assert (beyond == image.min()).all()


def test_a_voxel_is_the_sum_of_what_it_projects_to():
    """The example of figure 3a: two directions at right angles."""
    detector = Detector((5, 5), (1.0, 1.0))
    maps = noise(1, 1, 2, 1, detector.width)
    inside = slice((detector.width - 5) // 2, (detector.width + 5) // 2)
    across, down = maps[0, 0, :, 0, inside]
    expected = across[None, :] + down[:, None]
    torch.testing.assert_close(backproject(maps, (0, 90), detector)[0, 0, 0], expected)


@pytest.mark.parametrize("voxel", [(1.0, 1.0), (2.0, 1.0)])
def test_filtered_backprojection_inverts_the_mean_projection(voxel):
    shape = (48 // int(voxel[0]), 48)
    detector = Detector(shape, voxel)
    y, x = ((torch.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, voxel, strict=True))
    radius = torch.hypot(y[:, None] - 5, x[None, :] + 6)
    disk = (radius < 12).float()[None, None, None]
    degrees = tuple(180 * k / 60 for k in range(60))
    found = invert_mean(project(disk, degrees, detector, "mean"), degrees, detector)[0, 0, 0]
    assert found[radius < 9].mean() == pytest.approx(1, abs=0.05)
    assert found[radius < 9].std() < 0.1
    assert found[radius > 15].abs().mean() < 0.05


@given(parts=st.integers(1, 180), seed=st.integers(0, 99))
def test_a_whole_degree_is_drawn_from_each_sector(parts, seed):
    degrees = draw_directions(parts, torch.Generator().manual_seed(seed))
    assert len(degrees) == parts
    for k, degree in enumerate(degrees):
        assert degree == int(degree)
        assert int(k * 180 / parts) <= degree < (k + 1) * 180 / parts


def test_every_degree_of_a_sector_is_drawn():
    drawn = {draw_directions(60, torch.Generator().manual_seed(s))[1] for s in range(60)}
    assert drawn == {3, 4, 5}
