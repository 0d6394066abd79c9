from __future__ import annotations

import numpy as np
import pytest

from napari_volseg.data.annotation import LabelClass
from napari_volseg.data.volume import Volume
from napari_volseg.review.slice_picture import thumbnail

CLASSES = (LabelClass(1, "background", "#00ff00"), LabelClass(2, "object", "#ff0000"))


@pytest.fixture
def volume():
    """An image that is brighter in its second half along x."""
    image = np.zeros((1, 10, 200, 400), np.uint16)
    image[..., 200:] = 1000
    return Volume(image, (4.0, 0.5, 0.5), "micrometer")


@pytest.mark.parametrize(("axis", "shape"), [(0, (32, 64)), (1, (13, 64)), (2, (26, 64))])
def test_it_fits_into_its_box_in_physical_proportion(volume, axis, shape):
    labels = np.ones(volume.shape, np.uint8)
    picture = thumbnail(volume, labels, CLASSES, axis, 5, (64, 64))
    assert picture.shape == (*shape, 3) and picture.dtype == np.uint8


def test_a_thin_slice_can_still_be_seen():
    volume = Volume(np.zeros((1, 1, 50, 900), np.uint8))
    labels = np.ones(volume.shape, np.uint8)
    assert thumbnail(volume, labels, CLASSES, 1, 5, (64, 64)).shape == (8, 64, 3)


def test_classes_are_drawn_over_the_image_but_no_background(volume):
    labels = np.ones(volume.shape, np.uint8)
    labels[5, :100] = 2
    labels[5, 100:, :200] = 0
    picture = thumbnail(volume, labels, CLASSES, 0, 5, (64, 64)).astype(int)
    assert picture[16:, :32].max() == 0 and picture[16:, 32:].min() == 255
    red, green, blue = np.moveaxis(picture[:16], -1, 0)
    assert (red > green + 100).all() and (green == blue).all()
    assert (green[:, 32:] > green[:, :32]).all(), "the image shines through"
    np.testing.assert_array_equal(
        thumbnail(volume, labels, CLASSES, 0, 4, (64, 64))[:, :, 0].min(0),
        [0] * 32 + [255] * 32,
    )
