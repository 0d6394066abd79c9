from __future__ import annotations

import numpy as np
import pytest

from napari_volseg.sparse.places import locate_held_out
from napari_volseg.sparse.stage import IGNORE

SHAPE = (20, 30, 40)
SPACING = (2.0, 1.0, 1.0)


def painted_planes() -> np.ndarray:
    """Slice 4 of the xy slices, 7 of the xz slices, 11 of the yz slices, all of them whole."""
    painted = np.full(SHAPE, IGNORE, np.int16)
    painted[4] = painted[:, 7] = painted[:, :, 11] = 0
    return painted


def parted(painted, held):
    """What is trained on, and what is held out."""
    return (np.where(held, IGNORE, painted).astype(np.int16),
            np.where(held, painted, IGNORE).astype(np.int16))  # fmt: skip


def test_each_held_out_voxel_is_on_the_slice_that_was_painted():
    painted = painted_planes()
    held = painted != IGNORE
    held[:2] = False
    places = locate_held_out(*parted(painted, held), SPACING)
    assert places.slice_axes.tolist() == [0, 1, 2]
    slices = np.full(SHAPE, -1)
    slices.flat[places.voxels] = places.slice_of
    assert (slices[4, :6, :10] == 0).all()
    assert (slices[5:-1, 7, 12:] == 1).all()
    assert (slices[5:-1, 8:, 11] == 2).all()
    # Where slices cross, paint is of one of them, and not of a fourth.
    assert (slices[5:-1, 7, 11] == 1).all()


def a_slice_that_ends() -> np.ndarray:
    """Slices z = 0 and y = 0; of the latter all is to be held out from z = 10 on."""
    painted = np.full(SHAPE, IGNORE, np.int16)
    painted[0] = painted[:, 0] = 1
    return painted


def test_far_is_farther_from_what_is_trained_than_half_of_the_volume():
    painted = a_slice_that_ends()
    held = (painted != IGNORE) & (np.indices(SHAPE)[0] >= 10)
    places = locate_held_out(*parted(painted, held), SPACING)
    z, y, _ = np.indices(SHAPE)
    # Voxels of (2, 1, 1): the nearest is below, beside, or at the end of what is trained.
    distance = np.minimum(2 * z, np.hypot(2 * np.maximum(z - 9, 0), y))
    assert places.reach == pytest.approx(np.median(distance))
    np.testing.assert_array_equal(places.far, distance.flat[places.voxels] > places.reach)
    assert places.far.any() and not places.far.all()
    # 40 voxels are as far as can be, not enough to tell; with those of z = 18 they are.
    assert places.unchecked == pytest.approx((distance > 2 * (18 - 9)).mean())
    assert places.unchecked > 0


def test_a_few_far_voxels_and_background_check_nothing():
    painted = a_slice_that_ends()
    z, y, x = np.indices(SHAPE)
    held = (painted != IGNORE) & ((z == 10) | ((z == 19) & (x < 15)))
    trained, held_out = parted(painted, held)
    trained[11:] = IGNORE
    distance = np.minimum(2 * z, np.hypot(2 * np.maximum(z - 9, 0), y))
    places = locate_held_out(trained, held_out, SPACING)
    assert places.far.sum() == 15
    assert places.unchecked == pytest.approx((distance > 2).mean())
    background = locate_held_out(trained, np.where(held, 0, IGNORE).astype(np.int16), SPACING)
    assert background.unchecked == 1
    held_out[19] = IGNORE
    assert locate_held_out(trained, held_out, SPACING).unchecked == 1, "40 voxels are too few"


def test_coarse_cells_call_nothing_far_that_is_not(monkeypatch):
    painted = painted_planes()
    held = (painted != IGNORE) & (np.indices(SHAPE)[2] > 20)
    fine = locate_held_out(*parted(painted, held), SPACING)
    monkeypatch.setattr("napari_volseg.sparse.places.MOST_CELLS", 1000)
    coarse = locate_held_out(*parted(painted, held), SPACING)
    assert coarse.reach == pytest.approx(fine.reach, abs=4)
    assert coarse.far.any() and fine.far.any()
    distance = np.maximum(np.unravel_index(coarse.voxels, SHAPE)[2] - 20, 0)
    assert (distance[coarse.far] > coarse.reach).all()


def test_the_voxels_of_a_region_are_found_in_their_order():
    painted = painted_planes()
    held = (painted != IGNORE) & (np.indices(SHAPE)[0] > 2)
    places = locate_held_out(*parted(painted, held), SPACING)
    region = (slice(3, 9), slice(5, 20), slice(8, 33))
    positions = np.argwhere(held[region]) + [side.start for side in region]
    at = places.find(positions)
    whole = np.zeros(SHAPE, bool)
    whole[region] = held[region]
    np.testing.assert_array_equal(places.voxels[at], np.flatnonzero(whole))
    np.testing.assert_array_equal(places.find(positions[::-1]), at[::-1])
