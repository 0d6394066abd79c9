from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from napari_volseg.data.tiles import tile_grid
from napari_volseg.models.windows import (
    Windows,
    blend_windows,
    cut,
    gaussian_weights,
    walk_windows,
    window_starts,
)


def noise(shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(seed))


def whole(shape):
    return tuple(slice(0, n) for n in shape)


def tell_apart(window: torch.Tensor) -> torch.Tensor:
    """Stand in for a network: what it says of a voxel depends on the whole window."""
    image = window[0]
    return torch.softmax(torch.cat([image - image.mean(), image.std() * image.flip(1)]), 0)


@given(length=st.integers(1, 60), size=st.integers(1, 20), overlap=st.floats(0, 0.9))
def test_windows_cover_an_axis_and_stay_inside(length, size, overlap):
    stride = Windows((size,) * 3, overlap).stride[0]
    starts = window_starts(length, size, stride)
    covered = {at for first in starts for at in range(first, first + size)}
    assert covered >= set(range(length))
    if length >= size:
        assert covered == set(range(length))
        assert all(b - a <= stride for a, b in itertools.pairwise(starts))


def test_the_papers_overlap_of_its_patches():
    assert Windows((96, 160, 160), 0.3).stride == (67, 112, 112)


@given(
    shape=st.tuples(st.integers(3, 22), st.integers(3, 26), st.integers(1, 9)),
    tile=st.integers(1, 20),
    smooth=st.booleans(),
)
def test_a_tiled_prediction_equals_a_whole_one(shape, tile, smooth):
    windows = Windows((4, 6, 5), 0.3, smooth)
    image = noise(shape)
    expected = blend_windows(windows, tell_apart, image, whole(shape))
    walk = walk_windows(windows, (tile,) * 3, shape)
    for piece in tile_grid(shape, walk.core, walk.halo, walk.border, walk.align):
        block = image[(slice(None), slice(None), *piece.read)]
        found = blend_windows(windows, tell_apart, block, piece.trim)
        torch.testing.assert_close(found, expected[(slice(None), *piece.write)])


def test_a_volume_within_the_tile_is_one_tile():
    windows = Windows((4, 4, 4), 0.3)
    assert walk_windows(windows, (8, 8, 8), (8, 7, 9)).core == (0, 0, 8)


def test_windows_are_averaged_by_their_gaussian_weights():
    windows = Windows((1, 1, 6), 0.5)
    image = torch.arange(9.0).reshape(1, 1, 1, 1, 9)

    def first_voxel(window: torch.Tensor) -> torch.Tensor:
        return window[0, :, :, :, :1].expand(1, 1, 1, 6)

    found = blend_windows(windows, first_voxel, image, whole((1, 1, 9)))[0, 0, 0]
    # Windows from 0 and 3 on; at voxel 4, their weights are those of their voxels 4 and 1,
    # which lie as far from the middle.
    assert found[:3].tolist() == [0, 0, 0]
    assert found[6:].tolist() == pytest.approx([3, 3, 3])
    near, far = gaussian_weights((1, 1, 6), torch.device("cpu"))[0, 0, [3, 0]]
    assert found[3] == pytest.approx(float(3 * far / (near + far)))
    assert near / far == pytest.approx(torch.e ** (0.5 * (2.5**2 - 0.5**2) / 0.75**2), rel=1e-3)


def test_smoothing_is_an_average_over_the_neighbors_that_there_are():
    image = noise((5, 6, 7))
    windows = Windows((8, 8, 8), 0.3, smooth=True)
    found = blend_windows(windows, lambda window: window[0], image, whole((5, 6, 7)))
    count = functional.conv3d(torch.ones_like(image), torch.ones(1, 1, 3, 3, 3), padding=1)
    expected = functional.conv3d(image, torch.ones(1, 1, 3, 3, 3), padding=1) / count
    torch.testing.assert_close(found, expected[0])


def test_a_short_axis_is_mirrored_around_the_middle_of_the_window():
    image = torch.tensor([1.0, 2, 3]).reshape(1, 1, 1, 1, 3)
    (start,) = window_starts(3, 6, 4)
    assert cut(image, (0, 0, start), (1, 1, 6)).flatten().tolist() == [3, 2, 1, 2, 3, 2]
