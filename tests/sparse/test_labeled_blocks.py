from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.volume import Volume
from napari_volseg.sparse import labeled_blocks
from napari_volseg.sparse.anywhere import voxel_responses
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.labeled_blocks import drawn_blocks, labeled_responses, neighbors
from napari_volseg.sparse.learned_filters import learned_reach
from napari_volseg.sparse.pixels import PixelClassifier
from napari_volseg.sparse.pool import Pool, build_pool
from napari_volseg.sparse.position import with_region_position

VOXEL = (2.0, 1.0, 1.0)
RARE = 3


def painted() -> np.ndarray:
    """Slices of three orientations that cross, and a stroke that is thick."""
    labels = np.zeros((23, 41, 52), np.uint8)
    labels[5] = 1
    labels[:, 17] = 2
    labels[:, :, 40] = 1
    labels[10:14, 30:33, 3:9] = RARE
    return labels


def pool_of(labels: np.ndarray) -> Pool:
    image = np.random.default_rng(0).normal(size=(1, *labels.shape)).astype(np.float32)
    case = Case(Volume(image, VOXEL), Annotation(labels))
    return build_pool((case,), TrainingConfig(held_out=0), torch.device("cpu"))


def classifier(learned: bool = False) -> PixelClassifier:
    return PixelClassifier(1, 3, (1.0, 4.0), VOXEL, position=True, learned=learned)


@pytest.mark.parametrize("learned", [False, True])
def test_each_labeled_voxel_has_the_responses_of_the_whole_volume_once(learned, monkeypatch):
    monkeypatch.setattr(labeled_blocks, "BLOCK", 16)
    pool = pool_of(painted())
    (case,) = pool.cases
    z, y, x = (slice(0, n) for n in case.volume.shape)
    image = with_region_position(case.read((z, y, x)), (z, y, x), case.volume.shape)
    labeled = case.target >= 0
    own = classifier(learned)
    responses = torch.cat(own.responses(image[None], (z, y, x)), 1)[0]
    whole = responses[:, torch.from_numpy(labeled)].T
    found = list(labeled_responses(pool, own))
    assert len(found) > 10 and found[-1][0] == 1
    features = torch.cat([f for *_, f in found])
    classes = torch.cat([block.classes for _, block, _ in found])
    # The position tells which voxel a row is; the order of the rows is free.
    rows = np.lexsort(features.numpy()[:, -3:].T)
    expected = np.lexsort(whole.numpy()[:, -3:].T)
    torch.testing.assert_close(features[rows], whole[expected], atol=1e-4, rtol=1e-4)
    np.testing.assert_array_equal(classes[rows], case.target[labeled][expected])


@pytest.mark.parametrize("learned", [False, True])
def test_voxels_that_nobody_painted_have_the_same_features(learned):
    pool, own = pool_of(painted()), classifier(learned)
    core = (slice(4, 20), slice(8, 41), slice(16, 52))
    for _, block, features in labeled_responses(pool, own):
        first, last = torch.tensor([(side.start, side.stop) for side in core]).T
        inside = ((block.voxels >= first) & (block.voxels < last)).all(1)
        found = voxel_responses(own, block.case, core, block.voxels[inside], pool.device)
        torch.testing.assert_close(found, features[inside], atol=1e-4, rtol=1e-4)


def test_of_many_labeled_voxels_some_are_drawn_and_rare_classes_stay(monkeypatch):
    monkeypatch.setattr(labeled_blocks, "BLOCK", 16)
    monkeypatch.setattr(labeled_blocks, "MOST_VOXELS", 200)
    monkeypatch.setattr(labeled_blocks, "FEWEST_VOXELS", 50)
    pool = pool_of(painted())
    drawn = [block for _, block, _ in labeled_responses(pool, classifier())]
    counts = torch.cat([block.classes for block in drawn]).bincount()
    assert counts[RARE - 1] >= 50
    assert counts.sum() < sum(pool.counts) / 2


def test_what_is_the_same_again_is_not_filtered_again(monkeypatch):
    pool, own = pool_of(painted()), classifier(learned=True)
    first = [features for *_, features in labeled_responses(pool, own)]
    monkeypatch.setattr(labeled_blocks, "block_responses", None)
    again = list(labeled_responses(pool, own))
    assert again[-1][0] == 1
    expected = torch.cat(first)
    found = torch.cat([features for *_, features in again])
    for rows in (expected, found):
        rows.copy_(rows[np.lexsort(rows.numpy()[:, -3:].T)])
    torch.testing.assert_close(found, expected)


def groups_of(labels: np.ndarray, most: int = 200**3) -> list[list[labeled_blocks.Block]]:
    pool, own = pool_of(labels), classifier(learned=True)
    blocks = drawn_blocks(pool, own)
    groups = neighbors(blocks, learned_reach(VOXEL), most)
    assert sorted(b.key for group in groups for b in group) == sorted(b.key for b in blocks)
    return groups


def test_learned_filters_run_once_over_blocks_near_each_other_only():
    labels = np.zeros((20, 600, 100), np.uint8)
    labels[5], labels[:, 17], labels[:, :, 40] = 1, 2, RARE
    labels[:, 200:] = 0
    near = groups_of(labels)
    assert len(near) == 1 and len(near[0]) > 10
    labels[9, 580, 3:60] = 1
    far = groups_of(labels)
    assert sorted(len(group) for group in far)[:-1] == [1]


def test_they_see_no_more_at_once_than_there_is_memory_for():
    labels = np.zeros((20, 300, 300), np.uint8)
    labels[5, :150], labels[5, 150:] = 1, 2
    assert len(groups_of(labels)) == 1
    assert len(groups_of(labels, 20 * 200 * 200)) > 1
