from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from napari_volseg.data.annotation import Annotation
from napari_volseg.data.errors import InputError
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.review import metrics
from napari_volseg.review.metrics import evaluate, evaluating

SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)
SPACINGS = st.tuples(*[st.floats(0.1, 10)] * 3)


def background(shape=(5, 6, 7)):
    return np.ones(shape, dtype=np.uint8)


def surface_points(mask, spacing):
    """Positions of the surface voxels, by looking at each voxel's six neighbors."""
    padded = np.pad(mask, 1)
    inner = tuple(slice(1, -1) for _ in range(3))
    inside = np.ones(mask.shape, dtype=bool)
    for axis in range(3):
        for step in (-1, 1):
            inside &= np.roll(padded, step, axis)[inner]
    return np.argwhere(mask & ~inside) * np.asarray(spacing)


def brute_force(found, true, spacing, counted):
    """Nearest distances between two surfaces from all pairs of their voxels."""
    a, b = surface_points(found, spacing), surface_points(true, spacing)
    if not (len(a) and len(b)):
        return None
    pairs = cdist(a, b)
    weights_a = [counted[tuple(np.rint(p / spacing).astype(int))] for p in a]
    weights_b = [counted[tuple(np.rint(p / spacing).astype(int))] for p in b]
    return np.concatenate([pairs.min(1)[weights_a], pairs.min(0)[weights_b]])


def test_a_perfect_prediction():
    truth = background()
    truth[1:3, 2:4, 2:5] = 2
    found = evaluate(truth.copy(), truth, spacing=(2.0, 1.0, 1.0))
    assert found.foreground.iou == found.foreground.dice == found.foreground.mean_accuracy == 1
    assert found.foreground.asd == found.foreground.hd95 == 0
    assert found.voxels == truth.size


def test_overlaps_by_hand():
    truth, prediction = background((1, 1, 10)), background((1, 1, 10))
    truth[..., :4] = 2
    prediction[..., 2:8] = 2
    agreement = evaluate(prediction, truth).classes[2]
    assert agreement.iou == pytest.approx(2 / 8)
    assert agreement.dice == pytest.approx(4 / 10)
    assert agreement.mean_accuracy == pytest.approx((2 / 4 + 2 / 6) / 2)


def test_parallel_planes_are_their_distance_apart_in_physical_units():
    truth, prediction = background((9, 8, 8)), background((9, 8, 8))
    truth[2], prediction[5] = 2, 2
    agreement = evaluate(prediction, truth, spacing=(2.5, 1.0, 1.0)).classes[2]
    assert agreement.asd == agreement.hd95 == pytest.approx(7.5)


def test_distances_are_averaged_over_all_surface_voxels_of_both():
    truth, prediction = background((1, 1, 12)), background((1, 1, 12))
    truth[0, 0, 0] = 2
    prediction[0, 0, [0, 3, 10]] = 2
    agreement = evaluate(prediction, truth).classes[2]
    distances = [0, 3, 10, 0]
    assert agreement.asd == pytest.approx(np.mean(distances))
    assert agreement.hd95 == pytest.approx(np.percentile(distances, 95))


@given(st.data())
def test_surface_distances_equal_a_search_over_all_pairs(data):
    shape = data.draw(SHAPES)
    spacing = data.draw(SPACINGS)
    labels = hnp.arrays(np.uint8, shape, elements=st.integers(1, 3))
    prediction, truth = data.draw(labels), data.draw(labels)
    annotation = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 1)))
    annotation.flat[0] = 0
    for i, agreement in evaluate(
        prediction, truth, spacing=spacing, annotation=annotation
    ).classes.items():
        expected = brute_force(prediction == i, truth == i, spacing, annotation == 0)
        if expected is None or not expected.size:
            assert math.isnan(agreement.asd)
            assert math.isnan(agreement.hd95)
        else:
            assert agreement.asd == pytest.approx(expected.mean())
            assert agreement.hd95 == pytest.approx(np.percentile(expected, 95))


@given(st.data())
def test_voxels_that_do_not_count_change_no_overlap(data):
    shape = data.draw(SHAPES)
    labels = hnp.arrays(np.uint8, shape, elements=st.integers(1, 3))
    prediction, truth, noise = data.draw(labels), data.draw(labels), data.draw(labels)
    annotation = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 2)))
    annotation.flat[0] = 0
    first = evaluate(prediction, truth, annotation=annotation)
    second = evaluate(np.where(annotation > 0, noise, prediction), truth, annotation=annotation)
    for i in first.classes.keys() | second.classes.keys():
        for name in ("iou", "dice", "mean_accuracy"):
            assert getattr(first.classes[i], name) == pytest.approx(
                getattr(second.classes[i], name), nan_ok=True
            )


def test_unlabeled_truth_does_not_count_and_makes_no_surface():
    truth, prediction = background((8, 8, 8)), background((8, 8, 8))
    truth[:, 2:6, 2:6] = prediction[:, 2:6, 2:6] = 2
    truth[4:] = 0
    prediction[5, 0, 0] = 2
    found = evaluate(prediction, truth)
    assert found.voxels == 4 * 8 * 8
    assert found.foreground.iou == 1
    assert found.foreground.asd == 0


def test_a_prediction_without_a_class_is_wrong_there():
    truth = np.full((2, 2, 2), 2, dtype=np.uint8)
    prediction = truth.copy()
    prediction[0] = 0
    found = evaluate(prediction, truth)
    assert list(found.classes) == [2]
    assert found.foreground.iou == 0.5


def test_the_mean_leaves_the_background_out_and_takes_what_is_defined():
    truth, prediction = background((4, 4, 8)), background((4, 4, 8))
    truth[:2, :2, :2] = prediction[:2, :2, :2] = 2
    prediction[3, 3, 3] = 3
    found = evaluate(prediction, truth)
    assert sorted(found.classes) == [1, 2, 3]
    assert found.classes[3].iou == 0
    assert math.isnan(found.classes[3].asd)
    assert math.isnan(found.classes[3].mean_accuracy)
    assert found.foreground.iou == pytest.approx(0.5)
    assert found.foreground.asd == 0
    assert found.foreground.mean_accuracy == 1


def test_json_has_null_for_what_is_undefined():
    truth, prediction = background((2, 2, 2)), background((2, 2, 2))
    prediction[0, 0, 0] = 2
    document = json.loads(
        json.dumps(evaluate(prediction, truth, spacing=(3.0, 2.0, 1.0)).to_json(), allow_nan=False)
    )
    assert document["classes"]["2"]["asd"] is None
    assert document["classes"]["2"]["iou"] == 0
    assert document["foreground"]["hd95"] is None
    assert document["spacing"] == [3, 2, 1]
    assert document["voxels"] == 8


def test_only_background_has_no_foreground():
    found = evaluate(background(), background())
    assert all(math.isnan(v) for v in asdict(found.foreground).values())
    assert found.classes[1].iou == 1


def test_annotations_and_arrays_are_alike():
    truth = background()
    truth[0] = 2
    assert evaluate(
        Annotation(truth), Annotation(truth), annotation=Annotation(np.zeros_like(truth))
    ) == (evaluate(truth, truth))


@pytest.mark.parametrize(
    ("prediction", "truth", "annotation", "words"),
    [
        (background((2, 2, 2)), background((2, 2, 3)), None, "the prediction has shape"),
        (background((2, 2, 2)), background((2, 2, 2)), background((2, 2, 3)), "the annotation has"),
        (background((2, 2, 2)), background((2, 2, 2)) * 0, None, "no voxel is left"),
        (background((2, 2, 2)), background((2, 2, 2)), background((2, 2, 2)), "painted"),
        (np.ones((2, 2)), background((2, 2, 2)), None, "integer labels"),
        (np.ones((2, 2, 2)), background((2, 2, 2)), None, "float64"),
    ],
)
def test_bad_input_is_refused_in_words(prediction, truth, annotation, words):
    with pytest.raises(InputError, match=words):
        evaluate(prediction, truth, annotation=annotation)


def test_surface_distances_equal_those_of_monai():
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    rng = np.random.default_rng(0)
    spacing = (2.5, 1.0, 0.4)
    noise = [gaussian_filter(rng.normal(size=(12, 20, 24)), 2) for _ in range(2)]
    prediction, truth = (1 + (n > 0.02).astype(np.uint8) for n in noise)
    edges = get_mask_edges(prediction == 2, truth == 2)
    there = get_surface_distance(*edges, spacing=spacing)
    back = get_surface_distance(*edges[::-1], spacing=spacing)
    distances = np.concatenate([there, back])
    agreement = evaluate(prediction, truth, spacing=spacing).classes[2]
    assert agreement.asd == pytest.approx(distances.mean(), rel=1e-5)
    assert agreement.hd95 == pytest.approx(np.percentile(distances, 95), rel=1e-5)


@given(st.data())
def test_labels_in_blocks_and_in_several_tiles_give_the_same_figures(data):
    shape = data.draw(hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=12))
    labels = hnp.arrays(np.uint8, shape, elements=st.integers(0, 3), fill=st.just(1))
    prediction, truth, annotation = data.draw(labels), data.draw(labels), data.draw(labels)
    truth.flat[0], annotation.flat[0] = 1, 0
    spacing = data.draw(SPACINGS)
    expected = evaluate(prediction, truth, spacing=spacing, annotation=annotation)
    sparse = []
    for given_labels in (prediction, truth, annotation):
        sparse.append(SparseLabels(shape, np.uint8))
        sparse[-1][:] = given_labels
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "TILE", 5)
        found = evaluate(sparse[0], sparse[1], spacing=spacing, annotation=sparse[2])
    assert found.voxels == expected.voxels
    assert found.classes.keys() == expected.classes.keys()
    for i, agreement in expected.classes.items():
        assert asdict(found.classes[i]) == pytest.approx(asdict(agreement), nan_ok=True)


def test_what_is_done_grows_from_0_to_1():
    truth = background((4, 5, 6))
    truth[:, :2] = 2
    done = list(evaluating(truth, truth))
    assert done[0] == 0 and done == sorted(done) and done[-1] < 1
