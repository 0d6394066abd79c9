from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from napari_volseg.data.tiles import tile_grid
from napari_volseg.sparse import filters
from napari_volseg.sparse.filters import (
    alignment,
    cells_around,
    coarsening,
    core_responses,
    interpolation_matrix,
    refined,
    symmetric_eigenvalues,
    widest_reach,
)


def whole_of(image: torch.Tensor) -> tuple[slice, ...]:
    return tuple(slice(0, n) for n in image.shape[2:])


def responses(image: torch.Tensor, scale: float, voxel) -> torch.Tensor:
    return torch.cat(filters.responses(image, scale, voxel, whole_of(image)), 1)


def filter_bank(image: torch.Tensor, scales, voxel, core=None) -> torch.Tensor:
    return torch.cat(list(filters.filter_bank(image, scales, voxel, core or whole_of(image))), 1)


def noise(shape=(15, 18, 21), seed=0) -> torch.Tensor:
    return torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(seed))


def test_smoothing_and_gradient_agree_with_scipy():
    image = noise((24, 24, 24))
    smooth, gradient = responses(image, 1.5, (1, 1, 1))[0, :2]
    sigma = {"sigma": 1.5, "mode": "nearest", "truncate": 3.0}
    reference = ndimage.gaussian_filter(image[0, 0].numpy(), **sigma)
    np.testing.assert_allclose(smooth, reference, atol=1e-3)
    steep = 1.5 * ndimage.gaussian_gradient_magnitude(image[0, 0].numpy(), **sigma)
    assert np.corrcoef(gradient.ravel(), steep.ravel())[0, 1] > 0.999
    np.testing.assert_allclose(gradient, steep, atol=0.02)


def test_scales_are_physical():
    """An axis with voxels twice as coarse is smoothed over half as many of them."""
    image = noise((30, 30, 30))
    smooth = responses(image, 2.0, (2, 1, 1))[0, 0]
    how = {"mode": "nearest", "truncate": 3.0}
    reference = ndimage.gaussian_filter(image[0, 0].numpy(), (1, 2, 2), **how)
    np.testing.assert_allclose(smooth, reference, atol=1e-3)


def test_shape_is_told_by_the_eigenvalues():
    z, y, x = np.indices((21, 21, 21)) - 10.0
    sheet, tube, blob = (
        torch.from_numpy(np.exp(-d / 8)).float()[None, None]
        for d in (z**2, z**2 + y**2, z**2 + y**2 + x**2)
    )
    for shape, strong in ((sheet, 1), (tube, 2), (blob, 3)):
        eigenvalues = responses(shape, 2.0, (1, 1, 1))[0, 2:, 10, 10, 10]
        assert (eigenvalues < -0.1).sum() == strong


@given(values=st.lists(st.floats(-5, 5), min_size=6, max_size=6))
def test_eigenvalues_agree_with_numpy(values):
    zz, yy, xx, zy, zx, yx = values
    matrix = np.array([[zz, zy, zx], [zy, yy, yx], [zx, yx, xx]])
    found = symmetric_eigenvalues(*(torch.tensor(v, dtype=torch.float64) for v in values))
    expected = np.linalg.eigvalsh(matrix)[::-1]
    np.testing.assert_allclose([float(v) for v in found], expected, atol=1e-4)


def test_a_flat_image_responds_with_its_value_only():
    bank = filter_bank(torch.full((1, 2, 9, 9, 9), 3.0), (1.0, 4.0), (1, 1, 1))
    assert bank.shape == (1, 2 * 11, 9, 9, 9)
    assert torch.isfinite(bank).all()
    torch.testing.assert_close(bank[:, :2], torch.full_like(bank[:, :2], 3.0))
    assert bank[:, 4:12].abs().max() < 1e-3


def test_wide_filters_use_coarser_grids():
    assert coarsening(4.0, (1, 1, 1)) == (1, 1, 1)
    assert coarsening(16.0, (2, 1, 1)) == (2, 4, 4)
    assert alignment((1.0, 16.0, 32.0), (2, 1, 1)) == (4, 8, 8)


def test_coarser_grids_give_nearly_the_same_responses():
    image = torch.from_numpy(ndimage.gaussian_filter(noise((48, 48, 48))[0, 0], 2))[None, None]
    for coarse, fine in zip(
        torch.cat(core_responses(image, 12.0, (1, 1, 1), whole_of(image)), 1)[0],
        responses(image, 12.0, (1, 1, 1))[0],
        strict=True,
    ):
        assert np.corrcoef(coarse.ravel(), fine.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("axis", range(3))
def test_a_thin_core_responds_as_in_the_whole(axis):
    image = noise((12, 13, 14))
    core = tuple(slice(5, 6) if a == axis else slice(1, 9) for a in range(3))
    found = torch.cat(filters.responses(image, 1.5, (1, 2, 1), core), 1)
    expected = responses(image, 1.5, (1, 2, 1))[(slice(None), slice(None), *core)]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("scales", [(2.0,), (1.0, 12.0)])
@pytest.mark.parametrize("voxel", [(1, 1, 1), (4, 1, 1)])
def test_blocks_with_their_reach_respond_as_the_whole_volume(scales, voxel):
    image = noise((41, 57, 63))
    whole = filter_bank(image, scales, voxel)
    tiles = tile_grid(
        (41, 57, 63), (16, 16, 32), widest_reach(scales, voxel), align=alignment(scales, voxel)
    )
    for tile in tiles:
        block = image[(slice(None), slice(None), *tile.read)]
        torch.testing.assert_close(
            filter_bank(block, scales, voxel, tile.trim),
            whole[(slice(None), slice(None), *tile.write)],
            atol=2e-4,
            rtol=1e-3,
        )


@given(size=st.tuples(*[st.integers(1, 6)] * 3))
def test_any_size_has_finite_responses(size):
    assert torch.isfinite(filter_bank(noise(size), (1.0, 16.0), (3, 1, 1))).all()


@given(start=st.integers(0, 15), size=st.integers(1, 16))
def test_a_core_of_a_coarse_grid_is_refined_as_the_whole_is(start, size):
    cells = (1, 2, 4)
    coarse = noise((16, 8, 4))
    whole = torch.nn.functional.interpolate(coarse, (16, 16, 16), mode="trilinear")
    side = slice(start, min(16, start + size))
    core = (slice(3, 9), side, side)
    needed, inside = cells_around(core, cells, coarse.shape[2:])
    found = refined(coarse[(..., *needed)], cells, inside)
    torch.testing.assert_close(found, whole[(..., *core)])


def test_what_was_refined_while_predicting_can_be_learned_through():
    coarse = torch.randn(1, 1, 3, 5, 7, requires_grad=True)
    core = (slice(0, 6), slice(0, 10), slice(0, 14))
    interpolation_matrix.cache_clear()
    with torch.inference_mode():
        expected = refined(coarse.detach(), (2, 2, 2), core)
    found = refined(coarse, (2, 2, 2), core)
    found.sum().backward()
    assert torch.equal(found.detach(), expected)
    # Every voxel is shared out among cells.
    torch.testing.assert_close(coarse.grad.sum(), torch.tensor(float(found.numel())))
