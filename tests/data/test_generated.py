from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from napari_volseg.data.errors import InputError
from napari_volseg.data.generated import KINDS, generated_volume

SHAPE = (20, 48, 44)
every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@pytest.mark.parametrize("seed", range(3))
def test_every_class_is_there_and_every_voxel_labeled(kind, seed):
    volume, truth = generated_volume(kind, SHAPE, seed)
    assert volume.image.shape == (1, *SHAPE) and volume.image.dtype == np.uint8
    counts = np.bincount(truth.labels.ravel(), minlength=1 + len(truth.classes))
    assert counts[0] == 0 and (counts[1:] > 0.003 * truth.labels.size).all()
    assert [c.id for c in truth.classes] == list(range(1, 1 + len(truth.classes)))


@every_kind
def test_a_seed_makes_one_volume_and_another_seed_another(kind):
    (one, same), (two, equal), (other, _) = (
        generated_volume(kind, SHAPE, seed) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(same.labels, equal.labels)
    assert (one.image != other.image).mean() > 0.5


@pytest.mark.parametrize("kind", ["tubes", "blobs", "membranes"])
def test_the_foreground_is_brighter_but_not_by_a_threshold(kind):
    volume, truth = generated_volume(kind, SHAPE)
    gray, inside = volume.image[0].astype(float), truth.labels > 1
    assert gray[inside].mean() > 1.5 * gray[~inside].mean()
    ious = [((gray > t) & inside).sum() / ((gray > t) | inside).sum() for t in range(10, 250, 5)]
    assert max(ious) < 0.9


def test_an_organ_is_one_piece_and_other_organs_look_like_it():
    volume, truth = generated_volume("organs", (24, 64, 64))
    gray, inside = volume.image[0].astype(float), truth.labels > 1
    assert label(inside)[1] == 1
    alike = np.abs(gray - gray[inside].mean()) < gray[inside].std()
    assert (alike & ~inside).sum() > inside.sum()


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="choose tubes, blobs, membranes, organs"):
        generated_volume("bones", SHAPE)
