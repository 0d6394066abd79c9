from __future__ import annotations

import pytest
import torch

from napari_volseg.data.annotation import default_classes
from napari_volseg.data.errors import InputError
from napari_volseg.sparse.crops import Examples, alike_planes, draw_crops
from napari_volseg.sparse.object_config import ObjectConfig

STILL = ObjectConfig(turns=False, flips=False, gray_value=0.0)


def examples(target=(0, 1), spacing=(1.0, 1.0, 1.0), gray_channels=1):
    """Crops of a gray channel and a mask, no two voxels of which are alike."""
    crops = torch.arange(len(target) * 16, dtype=torch.float32).reshape(-1, 2, 2, 2, 2)
    classes = default_classes((2, 3))
    return Examples(crops, torch.tensor(target), classes, gray_channels, spacing)


def drawn(given, config, count=600, seed=0):
    return draw_crops(given, config, count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("spacing", "turns", "flips", "poses"),
    [
        ((1.0, 1.0, 1.0), True, False, 24),
        ((1.0, 1.0, 1.0), True, True, 48),
        ((4.0, 1.0, 1.0), True, False, 4),
        ((4.0, 1.0, 1.0), False, True, 8),
        ((1.0, 1.0, 1.0), False, False, 1),
    ],
)
def test_crops_are_seen_in_every_pose_that_voxels_allow_and_in_no_other(
    spacing, turns, flips, poses
):
    config = ObjectConfig(turns=turns, flips=flips, gray_value=0.0)
    crops = drawn(examples(spacing=spacing), config, count=1000).crops
    assert len({tuple((c - c.min()).flatten().tolist()) for c in crops}) == poses


def test_voxels_a_little_longer_than_wide_may_still_be_turned():
    assert alike_planes((1.4, 1.0, 1.0)) == ((0, 1), (0, 2), (1, 2))
    assert alike_planes((1.0, 3.0, 1.0)) == ((0, 2),)


def test_a_rare_class_is_seen_as_often_as_any_other():
    batch = drawn(examples(target=(0,) * 49 + (1,)), STILL)
    assert 0.4 < batch.target.float().mean() < 0.6


def test_a_crop_keeps_its_class():
    batch = drawn(examples(), STILL, count=20)
    assert batch.target.tolist() == [int(crop.max() >= 16) for crop in batch.crops]


def test_gray_values_change_and_the_mask_does_not():
    given = examples()
    crops = drawn(given, ObjectConfig(turns=False, flips=False, gray_value=0.5), count=9).crops
    masks = {tuple(m.flatten().tolist()) for m in crops[:, 1]}
    assert masks == {tuple(m.flatten().tolist()) for m in given.crops[:, 1]}
    assert len({tuple(g.flatten().tolist()) for g in crops[:, 0]}) == 9


def test_the_same_generator_draws_the_same():
    one, two, other = (drawn(examples(), ObjectConfig(), 5, seed).crops for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_one_class_is_not_enough():
    with pytest.raises(InputError, match="fewer than two classes"):
        examples(target=(1, 1))


@pytest.mark.parametrize(
    "bad",
    [
        {"sees": "color"},
        {"context": 0.5},
        {"extent": -1.0},
        {"gray_value": -0.1},
        {"steps": -1},
        {"minutes": 0.0},
    ],
)
def test_values_out_of_range_are_refused_by_name(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        ObjectConfig(**bad)
