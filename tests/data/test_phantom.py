from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, label

from napari_volseg.data.phantom import INSIDE, TUBULE, kidney_phantom

SMALL = (24, 48, 48)


@pytest.fixture(scope="module")
def phantom():
    return kidney_phantom(SMALL)


def test_it_is_the_volume_that_the_issue_describes(phantom):
    volume, truth = phantom
    assert volume.image.shape == (3, *SMALL)
    assert volume.image.dtype == np.uint8
    assert volume.spacing == (2.04, 1.76, 1.76)
    assert volume.unit == "micrometer"
    assert len(set(volume.channel_names)) == 3
    assert truth.labels.shape == SMALL
    assert [c.name for c in truth.classes] == ["background", "tubule", "inside of tubule"]


def test_the_truth_is_dense_and_every_slice_complete(phantom):
    _, truth = phantom
    assert (truth.labels > 0).all()
    assert len(truth.complete) == sum(SMALL)


@pytest.mark.parametrize("seed", range(6))
def test_every_seed_has_several_tubules_and_all_classes(seed):
    _, truth = kidney_phantom(SMALL, seed)
    parts = np.bincount(truth.labels.ravel(), minlength=4)[1:] / truth.labels.size
    assert parts[0] > 0.4
    assert parts[1] > 0.08
    assert parts[2] > 0.03
    in_planes = [label(truth.labels[z] >= TUBULE)[1] for z in range(SMALL[0])]
    assert np.mean(in_planes) > 2.5


def test_the_inside_lies_within_the_wall(phantom):
    _, truth = phantom
    around = binary_dilation(truth.labels == INSIDE) & (truth.labels != INSIDE)
    assert (truth.labels[around] == TUBULE).all()


def test_tubules_vary_in_caliber():
    labels = kidney_phantom((24, 96, 96))[1].labels
    sizes = [np.bincount(label(plane >= TUBULE)[0].ravel())[1:] for plane in labels]
    assert np.quantile(np.concatenate(sizes), 0.9) > 3 * np.quantile(np.concatenate(sizes), 0.3)


def test_the_same_seed_makes_the_same_volume_and_another_one_another(phantom):
    volume, truth = kidney_phantom(SMALL, 0)
    np.testing.assert_array_equal(volume.image, phantom[0].image)
    np.testing.assert_array_equal(truth.labels, phantom[1].labels)
    assert (kidney_phantom(SMALL, 1)[1].labels != truth.labels).any()


def test_no_threshold_on_a_channel_finds_a_class(phantom):
    volume, truth = phantom
    for channel in volume.image:
        for wanted in (truth.labels == TUBULE, truth.labels == INSIDE):
            ious = []
            for threshold in range(0, 256, 4):
                for found in (channel > threshold, channel <= threshold):
                    ious.append((found & wanted).sum() / max((found | wanted).sum(), 1))
            assert max(ious) < 0.5


def test_but_the_classes_differ_in_brightness(phantom):
    volume, truth = phantom
    lectin, dapi, catenin = volume.image.astype(float)
    inside = truth.labels == INSIDE
    lining = binary_dilation(inside, iterations=2) & ~inside
    assert lectin[lining].mean() > 1.2 * lectin[truth.labels == 1].mean()
    for stain in (dapi, catenin):
        assert stain[inside].mean() < 0.8 * stain[truth.labels == TUBULE].mean()


def test_light_fades_with_depth():
    volume, _ = kidney_phantom((48, 48, 48))
    means = volume.image.reshape(3, 3, -1).mean(axis=2)
    assert (means[:, 0] > means[:, 1]).all()
    assert (means[:, 1] > means[:, 2]).all()


def test_blur_is_worse_along_z(phantom):
    image = phantom[0].image[:, :12].astype(float)
    for channel in image:

        def correlation(axis, channel=channel):
            near = np.moveaxis(channel, axis, 0)
            return np.corrcoef(near[:-1].ravel(), near[1:].ravel())[0, 1]

        assert correlation(0) > correlation(1)
        assert correlation(0) > correlation(2)
