from __future__ import annotations

import numpy as np
import pytest

from napari_volseg.data.errors import InputError
from napari_volseg.data.volume import SUPPORTED_DTYPES, Volume

IMAGE = np.zeros((2, 3, 4, 5), np.uint8)


def test_shape_and_channels_are_read_from_the_image():
    volume = Volume(IMAGE)
    assert volume.shape == (3, 4, 5)
    assert volume.channels == 2


@pytest.mark.parametrize("dtype", SUPPORTED_DTYPES)
def test_every_supported_type_is_accepted(dtype):
    assert Volume(IMAGE.astype(dtype)).image.dtype == dtype


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (IMAGE[0], "channel axis"),
        (np.zeros((5, 3, 4, 5), np.uint8), "5 channels"),
        (np.zeros((1, 0, 4, 5), np.uint8), "empty"),
        (IMAGE.astype(np.int64), "int64"),
        (IMAGE.astype(complex), "complex"),
    ],
)
def test_an_image_of_another_kind_is_refused_by_name(image, words):
    with pytest.raises(InputError, match=words) as caught:
        Volume(image, name="kidney")
    assert "kidney" in str(caught.value)


@pytest.mark.parametrize("spacing", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, np.nan)])
def test_spacing_must_be_positive(spacing):
    with pytest.raises(InputError, match="spacing"):
        Volume(IMAGE, spacing)


def test_an_affine_must_be_4_by_4():
    with pytest.raises(InputError, match="affine"):
        Volume(IMAGE, affine=np.eye(3))
