from __future__ import annotations

import numpy as np

from napari_volseg.data.digits import digits


def test_digits_are_crops_of_3d_mnist_kind():
    images, values = digits(12, seed=1)
    assert images.shape == (12, 16, 16, 16)
    assert images.dtype == np.float32
    assert images.min() == 0
    assert images.max() == 1
    assert values.tolist() == [*range(10), 0, 1]
    outside = np.ones((16, 16, 16), bool)
    outside[1:-1, 1:-1, 1:-1] = False
    assert not (images[:, outside] > 0.9).any()


def test_each_is_of_its_own_hand_and_a_seed_repeats_them():
    one, two, other = (digits(2, seed=s, kinds=(4,))[0] for s in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one[0], one[1])


def test_an_upright_seven_has_its_bar_on_top_and_its_foot_below_in_a_thin_slab():
    images, _ = digits(1, kinds=(7,), rotation_degrees=0)
    ink = images[0].sum((0, 2))
    assert ink[:6].sum() > 1.5 * ink[-6:].sum()
    where = np.argwhere(images[0] > 0.5)
    depth, height, width = np.ptp(where, axis=0) + 1
    assert depth < width < height


def test_digits_differ_more_between_kinds_than_within():
    images, values = digits(40, kinds=(0, 1), rotation_degrees=0)
    means = np.stack([images[values == v].mean(0) for v in (0, 1)])
    nearest = ((images[:, None] - means) ** 2).sum((2, 3, 4)).argmin(1)
    assert (nearest == values).all()
