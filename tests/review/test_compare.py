from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from napari_volseg.data.annotation import Annotation, LabelClass
from napari_volseg.data.errors import InputError
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.data.volume import Volume
from napari_volseg.review import compare as compare_module
from napari_volseg.review.compare import (
    AGREE,
    NEITHER,
    ONLY_A,
    ONLY_B,
    OTHER_CLASS,
    compare,
    map_agreement,
    most_different_slices,
    zero_may_be_background,
)
from napari_volseg.review.report import write_report

SHAPE = (6, 10, 40)


def mask(*boxes, shape=SHAPE):
    """A mask with boxes along x, each (from, to, class)."""
    labels = np.ones(shape, np.uint8)
    for start, stop, class_id in boxes:
        labels[1:5, 2:8, start:stop] = class_id
    return Annotation(labels)


def objects(a, b, class_id=2):
    return compare(mask(*a), mask(*b)).objects[class_id]


def fates(counts):
    return (counts.matched, counts.split, counts.merged, counts.missed, counts.extra)


def test_a_map_says_where_masks_agree():
    a = Annotation(np.array([[[1, 2, 2, 1, 2, 3, 0, 2]]], np.uint8))
    b = Annotation(np.array([[[1, 2, 1, 3, 3, 3, 2, 0]]], np.uint8))
    assert map_agreement(a, b).tolist() == [
        [[NEITHER, AGREE, ONLY_A, ONLY_B, OTHER_CLASS, AGREE, 0, 0]]
    ]
    assert map_agreement(a, b, 2).tolist() == [
        [[NEITHER, AGREE, ONLY_A, NEITHER, ONLY_A, NEITHER, 0, 0]]
    ]
    assert map_agreement(a, b, 3).tolist() == [
        [[NEITHER, NEITHER, NEITHER, ONLY_B, ONLY_B, AGREE, 0, 0]]
    ]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([(0, 10, 2)], [(2, 12, 2)], (1, 0, 0, 0, 0)),
        ([(0, 10, 2)], [(5, 15, 2)], (0, 0, 0, 1, 1)),  # half is not more than half
        ([(0, 10, 2)], [(4, 14, 2)], (1, 0, 0, 0, 0)),
        ([(0, 5, 2)], [(0, 20, 2)], (0, 0, 0, 1, 1)),  # lies in it, but is too little of it
        ([(0, 9, 2), (10, 20, 2)], [(0, 20, 2)], (0, 1, 0, 0, 0)),
        ([(0, 20, 2)], [(0, 9, 2), (10, 20, 2)], (0, 0, 1, 0, 0)),
        ([(0, 3, 2), (17, 20, 2)], [(0, 20, 2)], (0, 0, 0, 1, 2)),  # two specks are no split
        ([(0, 10, 2)], [], (0, 0, 0, 0, 1)),
        ([], [(0, 10, 2)], (0, 0, 0, 1, 0)),
        ([(0, 12, 2), (13, 20, 2)], [(0, 20, 2), (30, 39, 2)], (0, 1, 0, 1, 0)),
        # B's first is split in two, the first of which holds B's second as well.
        ([(0, 16, 2), (17, 26, 2)], [(0, 3, 2), (4, 26, 2)], (0, 1, 1, 0, 0)),
        ([(0, 5, 2), (10, 15, 2)], [(0, 5, 2), (10, 16, 2)], (2, 0, 0, 0, 0)),
    ],
)
def test_objects_are_matched_split_merged_missed_or_extra(a, b, expected):
    counts = objects(a, b)
    assert fates(counts) == expected
    assert (counts.in_a, counts.in_b) == (len(a), len(b))


def test_objects_that_differ_are_listed_the_largest_first_with_their_places():
    a, b = mask((0, 9, 2), (10, 20, 2), (36, 39, 3)), mask((0, 20, 2), (22, 34, 3))
    b.labels[4, 3:8, 22:34] = 1
    found = compare(a, b).differences
    assert [(d.fate, d.class_id, d.voxels) for d in found] == [
        ("split", 2, 4 * 6 * 20),
        ("missed", 3, 3 * 6 * 12 + 12),
        ("extra", 3, 4 * 6 * 3),
    ]
    assert found[1].box == (slice(1, 5), slice(2, 8), slice(22, 34))
    assert found[1].largest[0] in (1, 2, 3) and found[1].largest[1] == 2
    assert compare(b, b).differences == ()


def test_exchanging_the_masks_exchanges_split_and_merged_missed_and_extra():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(3, 12, 40, 40))
    fields = [gaussian_filter(noise[0] + 0.3 * own, 1.2) for own in noise[1:]]
    one, other = (Annotation(1 + (f > f.std()).astype(np.uint8)) for f in fields)
    here = compare(one, other, smallest=1).objects[2]
    there = compare(other, one, smallest=1).objects[2]
    assert min(fates(here)) > 0
    assert here.matched == there.matched
    assert (here.split, here.merged) == (there.merged, there.split)
    assert (here.missed, here.extra) == (there.extra, there.missed)


def test_objects_of_different_classes_do_not_match():
    found = compare(mask((0, 10, 2)), mask((0, 10, 3))).objects
    assert fates(found[2]) == (0, 0, 0, 0, 1)
    assert fates(found[3]) == (0, 0, 0, 1, 0)


def test_specks_are_left_out():
    a = mask((0, 10, 2))
    a.labels[0, 0, 30] = 2
    assert compare(a, mask((0, 10, 2))).objects[2].extra == 0
    assert compare(a, mask((0, 10, 2)), smallest=1).objects[2].extra == 1


def test_what_is_unlabeled_in_either_does_not_count():
    a, b = mask((0, 10, 2), (20, 30, 2)), mask((0, 10, 2))
    b.labels[:, :, 15:] = 0
    found = compare(a, b)
    assert found.evaluation.voxels == 6 * 10 * 15
    assert found.evaluation.foreground.iou == 1
    assert fates(found.objects[2]) == (1, 0, 0, 0, 0)
    back = compare(b, a)
    assert back.evaluation.voxels == 6 * 10 * 15
    assert back.evaluation.foreground.iou == 1
    assert fates(back.objects[2]) == (1, 0, 0, 0, 0)


def test_the_figures_are_those_of_evaluate_in_physical_units():
    found = compare(mask((0, 10, 2)), mask((2, 12, 2)), spacing=(3.0, 2.0, 0.5), unit="micrometer")
    agreement = found.evaluation.classes[2]
    assert agreement.iou == pytest.approx(8 / 12)
    assert agreement.hd95 == pytest.approx(1.0)
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["objects"]["2"]["matched"] == 1
    assert document["unit"] == "micrometer"
    assert document["classes"]["2"]["iou"] == pytest.approx(8 / 12)


def test_masks_that_cannot_be_compared_are_refused_in_words():
    with pytest.raises(InputError, match=r"one has shape \(6, 10, 40\), other \(2, 2, 2\)"):
        compare(mask(), mask(shape=(2, 2, 2)), names=("one", "other"))
    empty = Annotation(np.zeros(SHAPE, np.uint8))
    with pytest.raises(InputError, match="no voxel is labeled in both"):
        compare(mask(), empty)


@pytest.mark.parametrize(
    ("a", "b", "doubtful"),
    [
        ([1, 2], [1, 2], False),
        ([1, 2], [0, 1], True),
        ([0, 1], [1, 2], True),
        ([0, 1], [0, 1], True),
        ([1, 2], [0, 1, 2], False),
        ([1, 3], [0, 1], False),
        ([0, 0], [1, 2], False),
        ([1, 1], [0, 0], True),
    ],
)
def test_a_zero_that_may_be_a_background_is_noticed(a, b, doubtful):
    one, other = (Annotation(np.array([[v]], np.uint8)) for v in (a, b))
    assert zero_may_be_background(one, other) is doubtful


def test_the_most_different_slice_of_each_view():
    a, b = mask(), mask()
    a.labels[4, 3, 7:12] = 2
    z, y, x = most_different_slices(compare(a, b).agreement)
    assert (z, y) == (4, 3)
    assert 7 <= x < 12
    assert most_different_slices(compare(b, b).agreement) == (3, 5, 20)


def pictures(page):
    data = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(d)))) for d in data]


def test_a_report_is_one_page_with_figures_and_pictures(tmp_path):
    classes = (LabelClass(1, "background", "#000000"), LabelClass(2, "tube <1>", "#ff0000"))
    a, b = (Annotation(m.labels, classes) for m in (mask((0, 10, 2)), mask((2, 12, 2))))
    found = compare(a, b, names=("mine & <yours>", "truth"), spacing=(2.0, 1.0, 1.0), unit="mm")
    volume = Volume(np.full((1, *SHAPE), 7, np.uint8), (2.0, 1.0, 1.0), "mm")
    path = tmp_path / "report.html"
    write_report(path, found, volume)
    page = path.read_text(encoding="utf-8")
    assert "mine &amp; &lt;yours&gt;" in page
    assert "tube &lt;1&gt;" in page
    assert "0.667" in page
    assert "ASD (mm)" in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    drawn = pictures(page)
    assert len(drawn) == 3 * 4
    assert drawn[0].shape[1] / drawn[0].shape[0] == pytest.approx(40 / 10, rel=0.05)
    yz = drawn[-1]
    assert yz.shape[1] / yz.shape[0] == pytest.approx(10 / (6 * 2), rel=0.05)
    reddish = [int((p[..., 0] > p[..., 1].astype(int) + 60).sum()) for p in drawn[:3]]
    assert reddish[0] == 0
    assert min(reddish[1:]) > 100
    write_report(path, found)
    assert len(pictures(path.read_text(encoding="utf-8"))) == 3 * 3
    with pytest.raises(InputError, match="give the image of these masks"):
        write_report(path, found, Volume(np.zeros((1, 2, 2, 2), np.uint8)))
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_masks_in_blocks_are_compared_like_arrays(monkeypatch):
    monkeypatch.setattr(compare_module, "TILE", 7)
    rng = np.random.default_rng(2)
    fields = [gaussian_filter(n, 1.2) for n in rng.normal(size=(2, 12, 80, 70))]
    one, other = (1 + (f > f.std()).astype(np.uint8) + (f > 1.6 * f.std()) for f in fields)
    other[:, :9] = 0
    arrays = [Annotation(labels) for labels in (one, other)]
    sparse = []
    for labels in (one, other):
        blocks = SparseLabels(labels.shape, np.uint8)
        blocks[:] = labels
        sparse.append(Annotation(blocks))
    expected, found = compare(*arrays), compare(*sparse)
    assert found.to_json() == expected.to_json()
    assert sorted(map(repr, found.differences)) == sorted(map(repr, expected.differences))
    assert isinstance(found.agreement, SparseLabels)
    np.testing.assert_array_equal(found.agreement[:], expected.agreement)
    assert most_different_slices(found.agreement) == most_different_slices(expected.agreement)
    np.testing.assert_array_equal(map_agreement(*sparse, 2)[:], map_agreement(*arrays, 2))
    # One of each: the result is as the larger one.
    mixed = compare(arrays[0], sparse[1])
    assert mixed.to_json() == expected.to_json() and isinstance(mixed.agreement, SparseLabels)
    assert zero_may_be_background(*sparse) is zero_may_be_background(*arrays)
