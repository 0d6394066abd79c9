from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_volseg.sparse.augment import (
    change_gray_values,
    deformed_positions,
    elastic_field,
    fold,
    interpolate,
    patch_positions,
    rotation_matrix,
    spline_matrix,
)
from napari_volseg.sparse.config import TrainingConfig

STILL = TrainingConfig(rotation_degrees=0, scaling=0, elastic_sd_voxels=0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_upright_positions_are_the_voxels_around_the_center():
    positions = patch_positions((3, 1, 2), torch.tensor([5.0, 6.0, 7.5]))
    assert positions[0, 0, 0].tolist() == [4, 6, 7]
    assert positions[2, 0, 1].tolist() == [6, 6, 8]


@given(size=st.integers(1, 12), seed=st.integers(0, 99))
def test_reading_at_voxels_gives_the_voxels(size, seed):
    image = torch.randn(2, size, 4, 3, generator=generator(seed))
    center = torch.tensor([(size - 1) / 2, 1.5, 1.0])
    read = interpolate(image, patch_positions((size, 4, 3), center))
    torch.testing.assert_close(read, image)


def test_reading_between_two_voxels_gives_their_mean():
    image = torch.tensor([0.0, 10.0]).reshape(1, 1, 1, 2)
    assert interpolate(image, torch.tensor([0, 0, 0.25]).reshape(1, 1, 1, 3)).item() == 2.5


def test_without_strength_nothing_moves():
    center = torch.tensor([4.0, 5.0, 6.0])
    moved = deformed_positions((3, 4, 5), center, (2.0, 1.0, 1.0), STILL, generator())
    torch.testing.assert_close(moved, patch_positions((3, 4, 5), center))


@given(angles=st.tuples(*[st.floats(-3, 3)] * 3))
def test_rotations_keep_lengths(angles):
    matrix = rotation_matrix(torch.tensor(angles))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3), atol=1e-5, rtol=0)
    assert torch.linalg.det(matrix) == pytest.approx(1, abs=1e-5)


@given(seed=st.integers(0, 50))
def test_rotation_is_rigid_in_physical_space_whatever_the_spacing(seed):
    spacing = (3.0, 1.0, 0.5)
    config = TrainingConfig(rotation_degrees=40, scaling=0, elastic_sd_voxels=0)
    center = torch.zeros(3)
    moved = deformed_positions((4, 5, 6), center, spacing, config, generator(seed))
    still = patch_positions((4, 5, 6), center)
    physical = torch.tensor(spacing)
    torch.testing.assert_close(
        (moved * physical).norm(dim=-1), (still * physical).norm(dim=-1), atol=1e-4, rtol=1e-4
    )


def test_elastic_field_has_the_papers_size_in_physical_units():
    config = TrainingConfig(elastic_sd_voxels=4, elastic_spacing_voxels=32)
    fields = [
        elastic_field((9, 33, 33), [36.0, 33.0, 33.0], config, generator(s)) for s in range(60)
    ]
    # The spline passes through the drawn vectors and is a little flatter between them.
    sd = torch.stack(fields).std()
    assert 2.4 < sd < 4.4


def test_elastic_field_is_smooth():
    config = TrainingConfig()
    field = elastic_field((40, 40, 40), [40.0] * 3, config, generator(3))
    steps = (field[1:] - field[:-1]).abs().max()
    assert 0 < steps < 1.5


def test_spline_passes_through_its_nodes():
    matrix = spline_matrix(65, 2.0 * 65 / 64).numpy()  # voxels 0, 32, 64 are grid nodes
    middle = matrix.shape[1] // 2
    for voxel, node in ((0, middle - 1), (32, middle), (64, middle + 1)):
        expected = np.zeros(matrix.shape[1])
        expected[node] = 1
        np.testing.assert_allclose(matrix[voxel], expected, atol=1e-5)


def test_elastic_displacement_in_voxels_shrinks_along_a_coarse_axis():
    config = TrainingConfig(rotation_degrees=0, scaling=0)
    center = torch.zeros(3)
    shifts = torch.stack(
        [
            deformed_positions((8, 32, 32), center, (4.0, 1.0, 1.0), config, generator(s))
            - patch_positions((8, 32, 32), center)
            for s in range(40)
        ]
    )
    sd = shifts.flatten(0, 3).std(0)
    assert sd[0] * 4 == pytest.approx(float(sd[1]), rel=0.25)


@given(size=st.integers(1, 9), position=st.integers(-40, 40))
def test_folding_mirrors_like_numpy(size, position):
    line = np.arange(size, dtype=float)
    expected = np.pad(line, 60, mode="reflect")[60 + position]
    folded = fold(torch.tensor([position, 0.0, 0.0]), (size, 5, 5))
    assert folded[0] == expected


def test_gray_values_change_each_channel_on_its_own_and_only_if_asked():
    image = torch.randn(2, 4, 4, 4, generator=generator())
    assert change_gray_values(image, 0, generator()) is image
    changed = change_gray_values(image, 0.3, generator())
    scale = changed.std(dim=(1, 2, 3)) / image.std(dim=(1, 2, 3))
    assert scale[0] != pytest.approx(float(scale[1]), rel=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_is_deformed_within_its_plane(axis):
    shape = tuple(1 if a == axis else 20 for a in range(3))
    center = torch.tensor([3.0, 4.0, 5.0])
    moved = deformed_positions(shape, center, (4.0, 1.0, 1.0), TrainingConfig(), generator(2))
    assert (moved[..., axis] == center[axis]).all()
    others = [a for a in range(3) if a != axis]
    assert (moved - patch_positions(shape, center))[..., others].abs().amax() > 0.5
