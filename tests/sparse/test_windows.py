"""The window of gray values: what is painted tells which of them matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.intensity import Window, measure_intensity, standardize
from napari_volseg.data.volume import Volume
from napari_volseg.sparse import windows
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.pool import build_pool
from napari_volseg.sparse.windows import gray_values, window_of, windows_of_paint

SHAPE = (16, 40, 40)
PLAIN = TrainingConfig(held_out=0)


def body(contrast: float = 40.0) -> tuple[np.ndarray, np.ndarray]:
    """Air and tissue, an organ that is a little brighter, in it a lesion; and what they are."""
    random = np.random.default_rng(0)
    image, truth = np.full(SHAPE, -1000.0), np.ones(SHAPE, np.uint8)
    image[:, 4:36, 4:36] = 20
    image[:, 8:32, 8:32], truth[:, 8:32, 8:32] = 20 + contrast, 2
    image[:, 14:26, 14:26], truth[:, 14:26, 14:26] = 20 + contrast / 2, 3
    return image + random.normal(scale=7, size=SHAPE), truth


def painted(image: np.ndarray, truth: np.ndarray) -> Case:
    labels = np.zeros_like(truth)
    labels[[4, 10]] = truth[[4, 10]]
    labels[:, 20] = truth[:, 20]
    return Case(Volume(image[None].astype(np.float32)), Annotation(labels))


def pool_windows(case: Case, config: TrainingConfig = PLAIN) -> tuple[Window, ...]:
    pool = build_pool([case], config, torch.device("cpu"))
    return tuple(channel.window for channel in pool.cases[0].intensity)


def test_what_differs_little_is_told_apart_though_air_is_in_the_image():
    image, truth = body()
    case = painted(image, truth)
    pool = build_pool([case], PLAIN, torch.device("cpu"))
    plain = standardize(case.volume.image, measure_intensity(case.volume))[0]
    seen = pool.cases[0].standardized[0].numpy()
    without, within = (
        np.median(values[truth == 2]) - np.median(values[truth == 3]) for values in (plain, seen)
    )
    assert within > 4 * without > 0


def test_the_middle_of_all_classes_and_the_mean_of_their_widths():
    """However much of each is painted."""
    random = np.random.default_rng(0)
    drawn = ((90_000, -1.0, 4.0), (3_000, 2.0, 0.1), (3_000, 2.6, 0.1))
    window = window_of([random.normal(mean, sd, n) for n, mean, sd in drawn])
    assert window.level == pytest.approx(2.0, abs=0.1)
    assert window.width == pytest.approx(1.349 * (4.0 * 0.1 * 0.1) ** (1 / 3), rel=0.05)


@pytest.mark.parametrize("medians", [(0.0, 1.0), (0.5, 0.5)])
def test_classes_without_noise_have_a_width(medians):
    window = window_of([np.full(50, median) for median in medians])
    assert window.level == pytest.approx(0.5) and 0 < window.width < 0.1


def test_stretched_gray_values_have_the_same_window():
    image, truth = body()
    (window,) = pool_windows(painted(image, truth))
    (stretched,) = pool_windows(painted(3 * image + 50, truth))
    assert stretched.level == pytest.approx(window.level, rel=1e-4)
    assert stretched.width == pytest.approx(window.width, rel=1e-4)


def test_only_what_is_trained_on_tells():
    """Labels of what is held out say nothing, nor do many voxels more than few."""
    image, truth = body()
    case = painted(image, truth)
    pool = build_pool([case], replace(PLAIN, held_out=0.3), torch.device("cpu"))
    (prepared,) = pool.cases
    assert (np.asarray(prepared.held_out) >= 0).any()
    plain = measure_intensity(case.volume)
    trained = [(case.volume, plain, prepared.voxels)]
    assert prepared.intensity[0].window == windows_of_paint(trained)[0]


def test_each_channel_has_its_own_window_and_all_volumes_share_it():
    image, truth = body()
    noise = np.random.default_rng(1).normal(size=SHAPE)
    first = painted(image, truth)
    first = replace(first, volume=replace(first.volume, image=np.stack([image, noise])))
    second = replace(first, volume=replace(first.volume, image=np.stack([2 * image, noise])))
    pool = build_pool([first, second], PLAIN, torch.device("cpu"))
    one, two = (tuple(c.window for c in case.intensity) for case in pool.cases)
    assert one == two and len(one) == 2
    assert one[0].width < 0.2 < 1.2 < one[1].width < 1.5
    assert pool.cases[1].intensity[0].scale == pytest.approx(2 * pool.cases[0].intensity[0].scale)


def test_a_class_that_one_volume_lacks_is_no_trouble():
    image, truth = body()
    first, second = painted(image, truth), painted(image, truth)
    second.annotation.labels[second.annotation.labels == 3] = 0
    alone = pool_windows(first)
    pool = build_pool([first, second], PLAIN, torch.device("cpu"))
    assert pool.cases[0].intensity[0].window.level == pytest.approx(alone[0].level, abs=0.05)


def test_of_much_paint_some_is_read_and_rare_classes_are_not_left_out(monkeypatch):
    monkeypatch.setattr(windows, "BLOCK", 4)
    monkeypatch.setattr(windows, "MOST_VOXELS", 100)
    monkeypatch.setattr(windows, "FEWEST_VOXELS", 20)
    shape = (3, 60, 60)
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape)
    often = np.argwhere(np.ones(shape, bool)).astype(np.int32)
    rare = np.array([[1, 50, x] for x in range(5)], np.int32)
    read = gray_values(Volume(image), [often, rare])
    assert 100 <= read[0].shape[1] < 400
    assert set(read[1][0]) == set(image[0, 1, 50, :5])


def test_only_what_is_painted_is_read():
    class Counted:
        """An image that notes how much of it is read."""

        shape, ndim, dtype, read = (1, 4000, 4000, 4000), 4, np.dtype(np.uint8), 0

        def __getitem__(self, index):
            found = np.zeros([s.stop - s.start if isinstance(s, slice) else 1 for s in index[1:]])
            self.read += found.size
            return found[None].astype(np.uint8)

    image = Counted()
    line = np.array([[2000, 2000, x] for x in range(300)], np.int32)
    (values,) = gray_values(Volume(image), [line])
    assert values.shape == (1, 300) and image.read == 300
