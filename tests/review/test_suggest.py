from __future__ import annotations

import numpy as np
import pytest

from napari_volseg.data.annotation import Annotation
from napari_volseg.data.samples import annotate_slices
from napari_volseg.data.tiles import tile_grid
from napari_volseg.review import suggest as module
from napari_volseg.review.suggest import (
    add_region,
    doubt_over_average,
    empty_map,
    rank_slices,
)

SHAPE = (24, 32, 40)
REACH = 0.1 * (24 * 32 * 40) ** (1 / 3)


def unsure(where=..., shape=SHAPE, classes=2):
    """Probabilities (K, z, y, x) of a guess between the first two classes somewhere, else sure."""
    probabilities = np.zeros((classes, *shape), np.float32)
    probabilities[0] = 1
    probabilities[:2, *(where if isinstance(where, tuple) else (where,))] = 0.5
    return probabilities


def ranked(probabilities, annotation=None, n=5, spacing=(1.0, 1.0, 1.0), core=(0, 0, 0)):
    """Rank from probabilities that come tile by tile."""
    shape = probabilities.shape[1:]
    uncertainty = empty_map(shape, spacing, len(probabilities))
    for tile in tile_grid(shape, core):
        add_region(uncertainty, tile.write, probabilities[(slice(None), *tile.write)])
    return rank_slices(uncertainty, annotation, n)


def places(suggestions):
    return [(s.axis, s.index) for s in suggestions]


def painted(counts, shape=SHAPE):
    return annotate_slices(Annotation(np.ones(shape, np.uint8)), counts)


def apart(some, others, least):
    """Whether no slice is closer than that to another one of its orientation."""
    return all(a != b or i == j or abs(i - j) >= least for a, i in some for b, j in others)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_where_the_model_is_unsure_comes_first(axis):
    where = [slice(None)] * 3
    where[axis] = slice(5, 8)
    first, *_ = ranked(unsure(tuple(where)))
    assert first.axis == axis
    assert 5 <= first.index < 8
    assert first.view == ("xy", "xz", "yz")[axis]


def test_an_unsure_part_is_met_by_slices_of_every_orientation():
    part = (slice(2, 7), slice(20, 29), slice(4, 13))
    found = ranked(unsure(part), n=3)
    assert {s.axis for s in found} == {0, 1, 2}
    assert all(part[s.axis].start <= s.index < part[s.axis].stop for s in found)


def test_doubt_that_paint_has_settled_is_not_suggested_again():
    """Of two parts that are as unsure, the one around painted slices comes later."""
    probabilities = unsure((slice(None), slice(None), slice(4, 13)))
    probabilities[:, :, :, 27:36] = 0.5
    annotation = Annotation(np.zeros(SHAPE, np.uint8))
    annotation.labels[:, :, 8] = 1
    first, *_ = ranked(probabilities, annotation)
    assert first.axis == 2
    assert 27 <= first.index < 36


@pytest.mark.parametrize("counts", [(0, 0, 0), (1, 1, 1), (2, 1, 0)])
def test_slices_keep_away_from_paint_and_from_each_other(counts):
    annotation = painted(counts)
    found = places(ranked(unsure(), annotation))
    assert len(set(found)) == 5
    assert apart(found, annotation.complete, REACH)
    assert apart(found, found, REACH)


@pytest.mark.parametrize("shape", [SHAPE, (8, 60, 60), (60, 8, 60)])
def test_five_slices_are_of_every_orientation(shape):
    assert {s.axis for s in ranked(unsure(shape=shape))} == {0, 1, 2}


def test_paint_of_one_orientation_asks_for_another():
    first, second, *_ = ranked(unsure(), painted((4, 0, 0)))
    assert {first.axis, second.axis} == {1, 2}


def test_scores_fall_and_are_of_the_doubt_that_is_there():
    scores = [s.score for s in ranked(unsure(), n=12)]
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[-1] < scores[0] < 1
    assert ranked(unsure(), painted((2, 2, 2)), n=1)[0].score < scores[0]


@pytest.mark.parametrize(("z_spacing", "axes"), [(10.0, {1, 2}), (0.1, {0})])
def test_distances_are_physical(z_spacing, axes):
    """Paint tells little across thick slices, and much across thin ones."""
    first, *_ = ranked(unsure(shape=(20, 20, 20)), spacing=(z_spacing, 1.0, 1.0))
    assert first.axis in axes


@pytest.mark.parametrize(("z_spacing", "place"), [(10.0, (0, 13)), (0.1, (2, 13))])
def test_distances_from_paint_are_physical(z_spacing, place):
    """Of two slices, each three voxels from paint, the one that is farther in space."""
    annotation = Annotation(np.zeros((20, 20, 20), np.uint8))
    annotation.labels[10] = annotation.labels[:, :, 10] = 1
    probabilities = unsure(13, shape=(20, 20, 20))
    probabilities[:, :, :, 13] = 0.5
    assert places(ranked(probabilities, annotation, 1, (z_spacing, 1.0, 1.0))) == [place]


def test_without_an_annotation_is_as_with_an_empty_one():
    empty = Annotation(np.zeros(SHAPE, np.uint8))
    assert ranked(unsure()) == ranked(unsure(), empty)


@pytest.mark.parametrize("how", ["painted", "nearly", "marked"])
def test_complete_slices_are_not_suggested(how):
    """Although all the doubt is there."""
    labels = np.zeros(SHAPE, np.uint8)
    complete = frozenset()
    if how == "marked":
        complete = frozenset({(0, 11)})
    else:
        labels[11] = 1
        labels[11, :, : 2 if how == "nearly" else 0] = 0
    found = ranked(unsure(11), Annotation(labels, complete=complete), n=3)
    assert len(found) == 3
    assert (0, 11) not in places(found)


def test_a_half_painted_slice_may_be_finished():
    labels = np.zeros(SHAPE, np.uint8)
    labels[11, :, :20] = 1
    right = unsure((11, slice(None), slice(20, None)))
    assert places(ranked(right, Annotation(labels), n=1)) == [(0, 11)]


def test_nothing_is_suggested_where_all_is_painted():
    assert ranked(unsure(), Annotation(np.ones(SHAPE, np.uint8))) == ()
    assert len(ranked(unsure(shape=(2, 3, 4)), n=50)) == 9


def test_a_sure_model_is_not_trusted_far_from_paint():
    annotation = painted((1, 1, 1))
    found = places(ranked(unsure(slice(0, 0)), annotation))
    assert len(found) == 5
    assert apart(found, annotation.complete, REACH)


@pytest.mark.parametrize("mirrored", [False, True])
def test_rare_classes_count_more(mirrored):
    """Two parts are as unsure: of a class that is common, and of one that is rare."""
    probabilities = unsure((slice(None), slice(None), slice(4, 8)), classes=3)
    probabilities[:, :, :, 14:20] = np.array([0, 1, 0]).reshape(3, 1, 1, 1)
    probabilities[:, :, :, 32:36] = np.array([0.5, 0, 0.5]).reshape(3, 1, 1, 1)
    first, *_ = ranked(probabilities[..., ::-1] if mirrored else probabilities)
    assert first.axis == 2
    assert 32 <= (39 - first.index if mirrored else first.index) < 36


@pytest.mark.parametrize("core", [(5, 7, 9), (24, 32, 3)])
def test_tiles_add_up_to_the_volume(core, monkeypatch):
    monkeypatch.setattr(module, "MOST_CELLS", 2000)
    probabilities = np.random.default_rng(0).dirichlet((1, 1, 1), SHAPE).astype(np.float32)
    probabilities = np.moveaxis(probabilities, -1, 0)
    whole, tiled = ranked(probabilities), ranked(probabilities, core=core)
    assert places(whole) == places(tiled)
    np.testing.assert_allclose([s.score for s in whole], [s.score for s in tiled], rtol=1e-4)


def test_coarse_cells_find_about_the_same_slices(monkeypatch):
    part = (slice(2, 7), slice(20, 29), slice(4, 13))
    fine = ranked(unsure(part), painted((1, 1, 1)), n=3)
    monkeypatch.setattr(module, "MOST_CELLS", 1000)
    coarse = ranked(unsure(part), painted((1, 1, 1)), n=3)
    assert {s.axis for s in fine} == {s.axis for s in coarse}
    for one in fine:
        (other,) = (s for s in coarse if s.axis == one.axis)
        assert abs(one.index - other.index) <= 2
        assert one.score == pytest.approx(other.score, rel=0.3)


def test_cells_are_few_and_about_cubic():
    uncertainty = empty_map((100, 1000, 1000), (4.0, 1.0, 1.0), 7)
    assert uncertainty.doubt[0].size <= module.MOST_CELLS
    edges = np.multiply(uncertainty.cell, uncertainty.spacing)
    assert edges.max() <= 2 * edges.min()


@pytest.mark.parametrize("shape", [SHAPE, (24, 45, 300)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_doubt_beside_a_slice_is_that_of_a_voxel(axis, shape):
    last = shape[axis] - 1
    where = [slice(None)] * 3
    where[axis] = slice(last, None)
    uncertainty = empty_map(shape, (1.0, 1.0, 1.0), 2)
    add_region(uncertainty, tuple(slice(0, n) for n in shape), unsure(shape=shape))
    everywhere = doubt_over_average(uncertainty, axis, last)
    assert everywhere == pytest.approx(1)
    uncertainty = empty_map(shape, (1.0, 1.0, 1.0), 2)
    add_region(uncertainty, tuple(slice(0, n) for n in shape), unsure(tuple(where), shape=shape))
    thickness = (last % uncertainty.cell[axis]) + 1
    low = doubt_over_average(uncertainty, axis, 0)
    high = doubt_over_average(uncertainty, axis, last)
    assert low < 1 < high
    assert high * thickness + low * (last + 1 - thickness) == pytest.approx(last + 1)
