from __future__ import annotations

from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import t

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.tiles import start_of, tile_grid
from napari_volseg.data.volume import Volume
from napari_volseg.models.belief import Belief
from napari_volseg.models.registry import Walk, no_halves
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.places import HeldOutPlaces
from napari_volseg.sparse.pool import build_pool
from napari_volseg.sparse.stage import IGNORE
from napari_volseg.training import held_out
from napari_volseg.training.evidence import comparable_iou, interval_over_slices, weigh_evidence

NONE = np.zeros((2, 2), np.int64)


def places(*axes: int) -> HeldOutPlaces:
    """Places of a volume with one painted slice across each of these axes."""
    none = np.zeros(0, np.int64)
    slice_axes = np.array(axes, np.int8)
    return HeldOutPlaces((9, 9, 9), none, none, slice_axes, none > 0, reach=5.0, unchecked=0.4)


def answers(right: int, wrong: int, background: int = 0) -> np.ndarray:
    """A confusion matrix: voxels of class 1 that are found and that are missed."""
    return np.array([[background, 0], [wrong, right]])


def test_near_and_far_and_the_views_by_hand():
    confusion = np.array(
        [
            [answers(90, 10), answers(30, 30)],
            [answers(80, 20), NONE],
        ]
    )
    evidence = weigh_evidence(confusion, [places(0), replace(places(2), reach=4.0, unchecked=0.2)])
    assert evidence.slices == 2 and evidence.reach == 4.0
    assert evidence.unchecked == pytest.approx(0.3)
    assert evidence.near == pytest.approx(170 / 200)
    assert evidence.far == pytest.approx(30 / 60)
    assert evidence.views == pytest.approx((120 / 160, None, 80 / 100))


def test_too_few_voxels_tell_nothing():
    near, far = comparable_iou([answers(90, 10), answers(30, 10, background=500)])
    assert near == 0.9 and far is None
    confusion = np.array([[answers(90, 10), NONE], [answers(3, 0), NONE]])
    evidence = weigh_evidence(confusion, [places(0, 1)])
    assert evidence.slices == 1 and evidence.interval is None
    assert evidence.far is None and evidence.views == (0.9, None, None)


def test_parts_are_compared_over_the_classes_that_they_share():
    easy, hard = [60, 0, 0], [0, 50, 50]
    both = np.array([[0, 0, 0], hard, easy[::-1]])
    without_hard = np.array([[0, 0, 0], [0, 0, 0], easy[::-1]])
    assert comparable_iou([both, without_hard]) == (60 / 110, 1.0)
    # With no class in common each is over its own.
    only_hard = np.array([[0, 0, 0], hard, [0, 0, 0]])
    assert comparable_iou([only_hard, without_hard]) == (0.5, 1.0)


def test_the_interval_over_slices_is_that_of_the_jackknife():
    slices = np.array([answers(90, 10), answers(80, 20), answers(70, 30)])
    # Slices of one size, in which nothing is found that is not there: a mean of proportions.
    expected = t.ppf(0.975, 2) * np.std([0.9, 0.8, 0.7], ddof=1) / np.sqrt(3)
    assert interval_over_slices(slices) == pytest.approx(expected)
    assert interval_over_slices(slices[[0, 0, 0]]) == 0
    assert interval_over_slices(slices[:1]) is None
    assert interval_over_slices(np.array([answers(100, 0), answers(0, 100)])) == 1


def test_a_class_of_one_slice_does_not_widen_the_interval():
    first = np.array([[0, 0, 0], [0, 90, 0], [0, 0, 80]])
    second = np.array([[0, 0, 0], [0, 90, 0], [0, 0, 0]])
    assert interval_over_slices(np.array([first, second])) == 0


@pytest.fixture
def pool():
    """Two slices across each other, of which one loses its far end to the held-out voxels.

    Twice the same volume, and between them one of which nothing is held out.
    """
    labels = np.zeros((16, 40, 40), np.uint8)
    labels[2], labels[:, 20] = 1, 1
    labels[2, :, 10:30] = labels[:, 20, 10:30] = 2
    case = Case(Volume(np.zeros((1, *labels.shape), np.uint8)), Annotation(labels))
    made = build_pool([case, case], TrainingConfig(held_out=0), torch.device("cpu"))
    target = made.cases[0].target
    held = np.zeros(labels.shape, bool)
    held[2, :6], held[10:, 20] = True, True
    judged = replace(
        made.cases[0],
        target=np.where(held, IGNORE, target).astype(np.int16),
        held_out=np.where(held, target, IGNORE).astype(np.int16),
    )
    return replace(made, cases=(judged, made.cases[1], judged))


SLABS = SimpleNamespace(walk=lambda config, shape: Walk(core=(5, 0, 0)), halves=no_halves)
"""An architecture that walks over a volume in slabs."""


def test_what_one_half_was_trained_on_the_other_is_judged_by():
    opinions = torch.arange(4).view(4, 1, 1).expand(4, 2, 3).float()
    judged = held_out.by_the_other(opinions, np.array([0, 1, 0]))
    assert judged[:, 0].tolist() == [[0, 0, 0], [1, 1, 1], [3, 2, 3], [3, 2, 3]]
    assert judged[:, 1].tolist() == judged[:, 0].tolist()


def test_a_network_that_is_good_near_paint_only_is_found_out(pool, monkeypatch):
    volume = pool.cases[0].volume

    def class_opinions(*arguments):
        """Right up to z = 12, background beyond."""
        for tile in arguments[-1]:
            z, _, x = np.mgrid[tile.write]
            foreground = torch.from_numpy((x >= 10) & (x < 30) & (z <= 12))
            yield tile.write, torch.stack([~foreground, foreground]).float()[None], 1, 1

    monkeypatch.setattr(held_out, "class_opinions", class_opinions)
    monkeypatch.setattr(held_out, "fit_belief", lambda *a: Belief())
    score = held_out.score_held_out(torch.nn.Identity(), None, SLABS, pool)
    evidence, places = score.evidence, pool.cases[0].places
    # What is held out of the xz slice is 1 to 6 voxels from the rest of it.
    assert volume.spacing == (1.0, 1.0, 1.0) and 3 < places.reach < 6
    z = places.voxels // 1600
    far = (z >= 10) & (z - 9 > places.reach)
    np.testing.assert_array_equal(places.far & (z > 2), far)
    assert evidence.views == pytest.approx((1.0, 0.5, None))
    assert evidence.slices == 4
    assert evidence.near > 0.85 > 0.6 > evidence.far
    assert asdict(score)["evidence"] == asdict(evidence)


def test_of_a_large_volume_some_tiles_are_judged_and_no_class_is_left_out():
    tiles = tile_grid((40, 40, 40), (10, 10, 10))
    held = np.full((40, 40, 40), IGNORE, np.int16)
    held[::2] = 0
    held[30:, 30:, 30:] = 1
    held[0, 0, :5] = 2
    drawn = held_out.drawn_tiles(tiles, held, 3, most_read=4_000)
    starts = [start_of(tile.write) for tile in drawn]
    assert 4 <= len(drawn) <= 6 and starts == sorted(starts)
    assert (30, 30, 30) in starts and (0, 0, 0) in starts, "they alone have these classes"
    again = held_out.drawn_tiles(tiles, held, 3, most_read=4_000)
    assert [tile.write for tile in again] == [tile.write for tile in drawn]
    assert len(held_out.drawn_tiles(tiles, held, 3, most_read=10**6)) == len(tiles)
    held[:, 20:] = IGNORE
    assert len(held_out.drawn_tiles(tiles, held, 3, most_read=10**6)) == len(tiles) // 2
    assert held_out.drawn_tiles(tiles, np.full_like(held, IGNORE), 3, most_read=10**6) == []
