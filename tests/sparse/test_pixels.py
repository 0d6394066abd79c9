from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.volume import Volume
from napari_volseg.sparse import pixels
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.learned_filters import LEARNED
from napari_volseg.sparse.pixels import PixelClassifier, labeled_responses
from napari_volseg.sparse.pool import Pool, build_pool
from napari_volseg.sparse.position import with_region_position

SCALES = (1.0, 4.0)
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
    return PixelClassifier(1, 3, SCALES, VOXEL, position=True, learned=learned)


@pytest.mark.parametrize("learned", [False, True])
def test_each_labeled_voxel_has_the_responses_of_the_whole_volume_once(learned, monkeypatch):
    monkeypatch.setattr(pixels, "BLOCK", 16)
    pool = pool_of(painted())
    (case,) = pool.cases
    z, y, x = (slice(0, n) for n in case.volume.shape)
    image = with_region_position(case.read((z, y, x)), (z, y, x), case.volume.shape)
    labeled = case.target >= 0
    own = classifier(learned)
    whole = own.responses(image[None], (z, y, x))[0][:, torch.from_numpy(labeled)].T
    found = list(labeled_responses(pool, own))
    assert len(found) > 10 and found[-1][0] == 1
    features = torch.cat([f for _, f, _ in found])
    classes = torch.cat([c for _, _, c in found])
    # The position tells which voxel a row is; the order of the rows is free.
    rows = np.lexsort(features.numpy()[:, -3:].T)
    expected = np.lexsort(whole.numpy()[:, -3:].T)
    torch.testing.assert_close(features[rows], whole[expected], atol=1e-4, rtol=1e-4)
    np.testing.assert_array_equal(classes[rows], case.target[labeled][expected])


def test_of_many_labeled_voxels_some_are_drawn_and_rare_classes_stay(monkeypatch):
    monkeypatch.setattr(pixels, "BLOCK", 16)
    monkeypatch.setattr(pixels, "MOST_VOXELS", 200)
    monkeypatch.setattr(pixels, "FEWEST_VOXELS", 50)
    pool = pool_of(painted())
    counts = torch.cat([c for *_, c in labeled_responses(pool, classifier())]).bincount()
    assert counts[RARE - 1] >= 50
    assert counts.sum() < sum(pool.counts) / 2


def test_one_opinion_sees_neither_the_place_nor_what_is_far():
    scales = (1.0, 2.0, 4.0, 8.0, 16.0)
    both = PixelClassifier(1, 3, scales, VOXEL, position=True).eval()
    region = tuple(slice(0, n) for n in (16, 32, 32))
    image = torch.randn(1, 1, 16, 32, 32, generator=torch.Generator().manual_seed(0))

    def logits(shape: tuple[int, int, int], image: torch.Tensor) -> torch.Tensor:
        placed = with_region_position(image[0], region, shape)[None]
        return both.over(both.responses(placed, region)).detach()

    here, elsewhere = logits((16, 32, 32), image), logits((99, 99, 99), image)
    assert here.shape == (2, 1, 3, 16, 32, 32)
    assert not torch.allclose(here[0], elsewhere[0])
    torch.testing.assert_close(here[1], elsewhere[1])
    seen = [len(opinion.columns) for opinion in (both.placed, both.near)]
    assert seen == [1 + 5 * 5 + 1 + 5 * 2 + 3, 1 + 4 * 5 + 1 + 4 * 5]


def test_only_the_opinion_that_knows_the_place_sees_learned_filters():
    without, both = classifier(), classifier(learned=True)
    assert len(both.near.columns) == len(without.near.columns)
    assert len(both.placed.columns) == len(without.placed.columns) + LEARNED
    region = tuple(slice(0, n) for n in (8, 16, 16))
    image = torch.randn(1, 1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    placed = with_region_position(image[0], region, (8, 16, 16))[None]
    responses = both.responses(placed, region)
    expected = without.responses(placed, region)
    learned = both.learned.responses(image, region)
    # The place comes last, whatever comes before.
    parts = (expected[:, :-3], learned, expected[:, -3:])
    torch.testing.assert_close(responses, torch.cat(parts, 1))


def test_an_opinion_is_the_same_of_voxels_in_rows_and_of_a_block():
    both = classifier().eval()
    features = torch.randn(1, both.placed.columns.numel(), 2, 3, 4)
    rows = both(features.flatten(2)[0].T)
    torch.testing.assert_close(both.over(features).flatten(3)[:, 0], rows.movedim(1, 2))
