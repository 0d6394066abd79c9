"""What a training is judged by: what is said of held-out voxels, heard without a prediction."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.tiles import tile_grid
from napari_volseg.sparse import anywhere, looks
from napari_volseg.sparse.pool import build_pool
from napari_volseg.training import held_out, loop
from napari_volseg.training.loop import train
from tests.training.test_loop import CONFIG, make_case

SHAPE = (24, 70, 44)


def with_strokes() -> Case:
    """A volume in which some strokes are painted, and no slice as a whole."""
    case = make_case(seed=1, name="strokes", shape=SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    labels[6, 30:40, 18:26], labels[9, 2:12, 4:30], labels[15, 50:66, 5:36] = 2, 1, 1
    labels[18, 31:39, 16:28] = 2
    return Case(case.volume, Annotation(labels))


@pytest.fixture(scope="module")
def heard():
    """What each score of a training of two volumes was judged by, and what a prediction says."""
    found = []

    def spy(module, config, architecture, pool, most, look):
        score = held_out.score_held_out(module, config, architecture, pool, most, look)
        predicted = held_out.predicted_looks(module, config, architecture, pool, 10**9)
        found.append((list(look(module, 10**9)), list(predicted), score))
        return score

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "score_held_out", spy)
        list(train([make_case(shape=SHAPE), with_strokes()], CONFIG))
    return found


def by_voxel(heard, opinions):
    """The first opinions, float (E, K), of each held-out voxel (case, z, y, x)."""
    return {
        (one.case, *at): said[:opinions]
        for one in heard
        for at, said in zip(one.voxels.tolist(), one.opinions.permute(2, 0, 1), strict=True)
    }


def classes_of(heard):
    """The class of each held-out voxel (case, z, y, x)."""
    every = [zip(one.voxels.tolist(), one.classes.tolist(), strict=True) for one in heard]
    return {(one.case, *at): k for one, pairs in zip(heard, every, strict=True) for at, k in pairs}


def test_what_is_judged_is_what_a_prediction_says(heard):
    assert len(heard) > 3 and {len(one.opinions) for one in heard[0][0]} == {3}
    for own, predicted, _ in heard:
        opinions = max(len(one.opinions) for one in own)
        mine, others = by_voxel(own, opinions), by_voxel(predicted, opinions)
        assert mine.keys() == others.keys()
        assert {case for case, *_ in mine} == {0, 1}
        for at, said in mine.items():
            torch.testing.assert_close(said, others[at], atol=2e-3, rtol=0)
        assert classes_of(own) == classes_of(predicted)
    assert {len(one.opinions) for one in heard[-1][0] if len(one.voxels)} == {5}
    assert {one.halves for one in heard[-1][0] if len(one.voxels)} == {2}


def test_voxels_are_drawn_from_all_of_the_volume_and_only_once(heard):
    first, last = ([one.anywhere for one in own] for own, *_ in (heard[0], heard[-1]))
    drawn = [one for one in last if one.shape[2]]
    assert len(drawn) == 2 and all(one.shape[2] >= anywhere.VOXELS for one in drawn)
    assert [one.shape[2] for one in first] == [one.shape[2] for one in last]
    for own, predicted, _ in heard:
        # Of the network and the pixel classifier: a second look is asked at held-out voxels only.
        some, every = (
            torch.cat([one.anywhere[:3] for one in of], 2).mean(2) for of in (own, predicted)
        )
        torch.testing.assert_close(some, every, atol=0.03, rtol=0)


def test_slices_painted_whole_tell_themselves_how_common_classes_are(monkeypatch):
    monkeypatch.setattr(looks, "seen_anywhere", lambda *_: pytest.fail("it filtered a volume"))
    assert list(train(make_case(), CONFIG))[-1].checkpoint.belief.shift == (0, 0)


def test_of_a_large_volume_some_tiles_are_looked_at_and_no_class_is_left_out():
    grid = tile_grid((40, 40, 40), (10, 10, 10))
    voxels = torch.nonzero(torch.ones(40, 40, 40))
    classes = (voxels >= 30).all(1).long()
    classes[:5] = 2
    seen = []

    def see(region):
        seen.append(region)
        z, y, x = (torch.arange(side.start, side.stop) for side in region)
        return torch.stack(torch.meshgrid(z, y, x, indexing="ij")).float()

    found, inside = looks.at_voxels(see, grid, voxels, classes, most_read=4_000)
    assert 4 <= len(seen) <= 6 and inside.sum() == 1000 * len(seen)
    torch.testing.assert_close(found[:, inside], voxels[inside].T.float())
    assert set(classes[inside].tolist()) == {0, 1, 2}
    few, inside = looks.at_voxels(see, grid, voxels[:7])
    assert inside.all() and few.T.tolist() == voxels[:7].tolist()


@pytest.mark.parametrize("wrong", [False, True])
def test_where_the_last_opinions_are_not_known_the_first_ones_are_judged(wrong):
    pool = build_pool([make_case()], CONFIG, torch.device("cpu"))
    voxels, classes, _ = pool.cases[0].judged
    truth = torch.from_numpy(classes).long()
    known = torch.arange(len(truth)) % 2 == 0

    def look(module, most_read):
        for some, opinions, answer in ((known, 5, truth), (~known, 3, (truth + wrong) % 2)):
            said = torch.nn.functional.one_hot(answer[some], 2).T.float().expand(opinions, -1, -1)
            none = said[:, :, :0]
            yield looks.Look(0, voxels[some], truth[some], said, opinions - 3, none)

    architecture = SimpleNamespace(halves=lambda module: True)
    score = held_out.score_held_out(torch.nn.Identity(), None, architecture, pool, 1, look)
    right = known & (truth == 1)
    assert score.mean_foreground_iou == pytest.approx(
        float(right.sum()) / int((truth == 1).sum() + (~known & (truth == 0)).sum()) if wrong else 1
    )
    assert len(score.belief.trust) == 5
