from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_volseg.data.annotation import default_classes
from napari_volseg.data.errors import InputError
from napari_volseg.data.intensity import measure_intensity
from napari_volseg.data.volume import Volume
from napari_volseg.review.object_crops import crop_object, gather_examples
from napari_volseg.review.objects import find_objects
from napari_volseg.sparse.object_config import ObjectConfig

MASK = ObjectConfig(sees="mask")


def balls(spacing=(1.0, 1.0, 1.0), radii=(8.0,), shape=(40, 40, 40)):
    """A mask with balls, physical radii, in a row along x; 1 is the background."""
    z, y, x = (np.arange(round(n / s)) * s for n, s in zip(shape, spacing, strict=True))
    mask = np.ones((len(z), len(y), len(x)), np.uint8)
    for i, radius in enumerate(radii):
        middle = shape[2] * (i + 0.5) / len(radii)
        away = (z[:, None, None] - 20) ** 2 + (y[:, None] - 20) ** 2 + (x - middle) ** 2
        mask[away <= radius**2] = 2
    return mask


def gray(mask, spacing=(1.0, 1.0, 1.0), channels=1):
    noise = np.random.default_rng(0).normal(0, 1, (channels, *mask.shape))
    return Volume((mask * 10 + noise).astype(np.float32), spacing)


def crop(mask, number=1, config=MASK, spacing=(1.0, 1.0, 1.0), channels=1, side=16):
    volume = gray(mask, spacing, channels)
    intensity = measure_intensity(volume)
    return crop_object(volume, find_objects(mask), number, config, side, intensity)


def test_components_of_each_class_are_objects():
    mask = np.ones((3, 6, 9), np.uint8)
    mask[0] = 0  # unlabeled, no object
    mask[1, 0, 0] = mask[2, 1, 1] = 2  # touch by a corner: one object
    mask[1, 5, 5:8] = 2
    mask[1, 4, 5:8] = 3  # touches the one before, but is of another class
    mask[2, 0, 8] = 4  # a speck
    objects = find_objects(mask, smallest=2)
    assert [(o.id, o.mask_label, o.voxels) for o in objects.found] == [
        (1, 2, 2),
        (2, 2, 3),
        (3, 3, 3),
    ]
    first, second, _ = objects.found
    assert first.center == (1.5, 0.5, 0.5)
    assert first.box == (slice(1, 3), slice(0, 2), slice(0, 2))
    assert second.center == (1.0, 5.0, 6.0)
    assert objects.labels[1, 4, 5] == 3
    assert (objects.labels > 0).sum() == 8
    assert find_objects(np.ones((3, 3, 3), np.uint8)).found == ()


def test_an_object_is_found_by_a_voxel_in_it_and_by_its_number():
    objects = find_objects(balls(radii=(5.0, 5.0)))
    assert [objects.at((20, 20, x)) for x in (10, 30)] == [1, 2]
    for voxel in ((0, 0, 0), (20, 20, 40), (-20, 20, 30)):
        with pytest.raises(InputError, match="no object at voxel"):
            objects.at(voxel)
    for number in (0, 3):
        with pytest.raises(InputError, match=f"no object {number}; they go from 1 to 2"):
            objects.get(number)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (4.0, 1.0, 1.0), (1.0, 0.5, 2.0)])
def test_a_ball_stays_a_ball_whatever_the_voxels(spacing):
    mask = crop(balls(spacing), spacing=spacing)[0]
    inside = mask.numpy().clip(0, 1)
    positions = np.indices(inside.shape) - 7.5
    widths = [np.sqrt((inside * p**2).sum() / inside.sum()) for p in positions]
    assert max(widths) < 1.2 * min(widths)
    middle = [(inside * p).sum() / inside.sum() for p in positions]
    half_a_voxel = [s / 2 * 16 / 20 for s in spacing]
    assert all(abs(m) < h + 0.1 for m, h in zip(middle, half_a_voxel, strict=True))


def test_sizes_show_only_in_crops_of_a_fixed_extent():
    mask = balls(radii=(3.0, 8.0))
    large, small = (float(crop(mask, n).sum()) for n in (1, 2))
    assert small == pytest.approx(large, rel=0.35)
    fixed = ObjectConfig(sees="mask", extent=20.0)
    large, small = (float(crop(mask, n, fixed).sum()) for n in (1, 2))
    assert large / small == pytest.approx((8 / 3) ** 3, rel=0.25)


def test_a_crop_shows_no_other_object():
    mask = balls(radii=(9.0, 9.0), shape=(40, 40, 40))
    wide = ObjectConfig(sees="both", context=2.5)
    image, own = crop(mask, 1, wide)
    assert own[7, 7, 13:].max() == 0
    assert image[7, 7, 13] > 0


@pytest.mark.parametrize(("sees", "channels"), [("image", 2), ("mask", 1), ("both", 3)])
def test_a_crop_holds_what_is_asked_for(sees, channels):
    found = crop(balls(), config=ObjectConfig(sees=sees), channels=2, side=8)
    assert found.shape == (channels, 8, 8, 8)
    assert found.dtype == torch.float32
    if sees != "image":
        assert set(found[-1].unique().tolist()) >= {0.0, 1.0}
    if sees != "mask":
        assert found[0, 4, 4, 4] > found[0, 0, 0, 0]


def test_an_object_at_the_border_is_cut_out_too():
    mask = np.ones((3, 9, 50), np.uint8)
    mask[:, :, :4] = 2
    image, own = crop(mask, config=ObjectConfig(context=3.0))
    assert torch.isfinite(image).all()
    assert own[0].max() == 0  # beyond the volume there is no object
    assert own[8, 8].max() > 0.5
    assert image[0, 8, 8] > image[0, 8, 15]  # but the image, mirrored


def test_examples_know_their_class_and_where_they_are_from():
    mask = balls(radii=(4.0, 4.0))
    volume = Volume(gray(mask).image, (1.0, 1.0, 1.0), "micrometer")
    objects, classes = find_objects(mask), default_classes((2, 3))
    found = gather_examples(volume, objects, {2: 2, 1: 3}, classes, ObjectConfig(), 8)
    assert found.crops.shape == (2, 2, 8, 8, 8)
    assert found.target.tolist() == [0, 1]
    assert (found.gray_channels, found.unit) == (1, "micrometer")
    with pytest.raises(InputError, match="no object 3"):
        gather_examples(volume, objects, {1: 2, 3: 3}, classes, MASK, 8)
    with pytest.raises(InputError, match=r"of class 7; the classes are \[2, 3\]"):
        gather_examples(volume, objects, {1: 2, 2: 7}, classes, MASK, 8)
    with pytest.raises(InputError, match="fewer than two classes"):
        gather_examples(volume, objects, {}, classes, MASK, 8)
    with pytest.raises(InputError, match="give a mask of this image"):
        gather_examples(gray(mask[1:]), objects, {1: 2, 2: 3}, classes, MASK, 8)
