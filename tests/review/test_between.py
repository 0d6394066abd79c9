from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from napari_volseg.data.errors import InputError
from napari_volseg.data.volume import Volume
from napari_volseg.review import between
from napari_volseg.review.between import interpolate_outlines, propose_between
from napari_volseg.widgets.work import propose_on

SPACING = (2.0, 1.0, 1.0)
PAINTED = (1, 7, 12)


@pytest.fixture
def quick(monkeypatch):
    """Learn for a tenth of the time: for what does not depend on how well."""
    monkeypatch.setattr(between, "STEPS", between.STEPS // 10)


def disk(radius, shape=(40, 40), center=(20, 20)):
    y, x = np.indices(shape)
    return np.where(np.hypot(y - center[0], x - center[1]) <= radius, 2, 1).astype(np.uint8)


@pytest.fixture(scope="module")
def truth():
    """A rod with a bulge right between two painted slices, which their outlines do not show."""
    radii = 5 + 6 * np.exp(-((np.arange(14) - 4) ** 2) / 2)
    return np.stack([disk(radius) for radius in radii])


@pytest.fixture(scope="module")
def volume(truth):
    noise = np.random.default_rng(0).normal(scale=8, size=truth.shape)
    return Volume((50.0 * truth + noise).astype(np.float32)[None], SPACING)


@pytest.fixture(scope="module")
def painted(truth):
    labels = np.zeros_like(truth)
    labels[list(PAINTED)] = truth[list(PAINTED)]
    return labels


def proposed(volume, labels, axis, slices):
    """Return all that is proposed, and how often each voxel was answered for."""
    found, times = np.zeros_like(labels), np.zeros(labels.shape, int)
    for proposal in propose_between(volume, labels, axis, slices):
        if proposal.region is not None:
            found[proposal.region] = proposal.labels
            times[proposal.region] += 1
    return found, times


def turned(volume, labels, axis):
    """Lay z along another axis."""
    spacing = np.insert(np.delete(SPACING, 0), axis, SPACING[0])
    image = np.moveaxis(volume.image, 1, axis + 1)
    return Volume(image, tuple(spacing)), np.moveaxis(labels, 0, axis).copy()


def iou(found, truth):
    return ((found == 2) & (truth == 2)).sum() / ((found == 2) | (truth == 2)).sum()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_lies_between_is_proposed_once_and_follows_the_image(volume, truth, painted, axis):
    found, times = proposed(*turned(volume, painted, axis), axis, PAINTED)
    found, times = np.moveaxis(found, axis, 0), np.moveaxis(times, axis, 0)
    inside = np.isin(np.arange(14), [2, 3, 4, 5, 6, 8, 9, 10, 11])
    assert (times[inside] == 1).all() and not times[~inside].any()
    assert found[inside].all() and not found[~inside].any()
    by_outline = painted.copy()
    for first, last in pairwise(PAINTED):
        classes, distances = interpolate_outlines(painted[first : last + 1], SPACING)
        by_outline[first : last + 1] = classes[distances.argmax(0)]
    assert iou(by_outline[inside], truth[inside]) < 0.7
    assert iou(found[inside], truth[inside]) > 0.9


@pytest.mark.usefixtures("quick")
def test_in_a_blank_image_outlines_are_interpolated(painted):
    blank = Volume(np.zeros((1, *painted.shape), np.float32), SPACING)
    labels = np.zeros_like(painted)
    # About half of the voxels are of each class: the image favors neither.
    labels[0], labels[4], labels[10] = disk(14), disk(18), disk(18, center=(20, 24))
    found, _ = proposed(blank, labels, 0, (0, 4, 10))
    assert iou(found[2], disk(16)) > 0.9
    assert iou(found[7], disk(18, center=(20, 22))) > 0.9


def test_distances_by_hand():
    labels = np.ones((3, 1, 7), np.uint8)
    labels[0, 0, 3:], labels[2, 0, 5:] = 2, 2
    classes, distances = interpolate_outlines(labels, (1, 1, 2))
    assert classes.tolist() == [1, 2]
    # The outline moves by two voxels of size 2; beyond 4 (voxels of size 1), all is far.
    assert distances[1, 0, 0].tolist() == [-4, -4, -2, 2, 4, 4, 4]
    assert distances[1, 2, 0].tolist() == [-4, -4, -4, -4, -2, 2, 4]
    np.testing.assert_allclose(distances[1, 1], (distances[1, 0] + distances[1, 2]) / 2)
    np.testing.assert_allclose(distances[0], -distances[1])


@pytest.mark.usefixtures("quick")
def test_paint_is_left_alone_and_unpainted_places_stay_so(volume, truth, painted):
    labels = painted.copy()
    labels[:, :, :16] = 0
    labels[:, 30] = 1
    found, _ = proposed(volume, labels, 0, PAINTED)
    assert not found[labels > 0].any()
    assert found[3:6, 5:25, 18:].all()
    assert not found[:, :29, :10].any()


@pytest.mark.parametrize("contrast", [0, 1])
@pytest.mark.usefixtures("quick")
def test_tiles_leave_no_seams(volume, painted, monkeypatch, contrast):
    seen = Volume(contrast * volume.image, SPACING)
    labels = painted.copy()
    labels[7], labels[12] = disk(14), disk(9, center=(16, 26))
    whole, _ = proposed(seen, labels, 0, PAINTED)
    monkeypatch.setattr(between, "TILE", 11)
    in_tiles, times = proposed(seen, labels, 0, PAINTED)
    assert times.max() == 1
    assert (in_tiles != whole).mean() < 1e-3


@pytest.mark.usefixtures("quick")
def test_the_pair_on_view_comes_first(volume, painted):
    events = list(propose_between(volume, painted, 0, PAINTED, near=11))
    regions = [event.region for event in events if event.region is not None]
    assert [(r[0].start, r[0].stop) for r in regions] == [(8, 12), (2, 7)]
    fractions = [event.fraction for event in events]
    assert fractions == sorted(fractions) and fractions[-1] == 1 and len(fractions) > 10


@pytest.mark.usefixtures("quick")
def test_painted_slices_are_found_in_the_labels(volume, painted):
    labels = painted.copy()
    labels[:, 20] = np.maximum(labels[:, 20], 1)
    events = propose_on(volume, labels, 0, 4)
    assert next(e.region for e in events if e.region is not None)[0] == slice(2, 7)
    events.close()
    with pytest.raises(InputError, match="two painted xz slices"):
        next(propose_on(volume, labels, 1, 20))


@pytest.mark.parametrize("slices", [(), (3,), (3, 4)])
def test_nothing_lies_between(volume, painted, slices):
    with pytest.raises(InputError, match="a second xy slice"):
        next(propose_between(volume, painted, 0, slices))


def test_one_class_alone_is_refused(volume, painted):
    with pytest.raises(InputError, match="at least two classes"):
        next(propose_between(volume, np.where(painted == 2, painted, 0), 0, PAINTED))
