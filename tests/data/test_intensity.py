"""Gray-value statistics: read from all of a volume, or from what stands for it."""

from __future__ import annotations

import numpy as np
import pytest

from napari_volseg.data import intensity
from napari_volseg.data.errors import InputError
from napari_volseg.data.intensity import (
    Window,
    measure_intensity,
    pooled_intensity,
    read_standardized,
    standardize,
)
from napari_volseg.data.volume import Volume


@pytest.fixture
def waves():
    z, y, x = np.ogrid[:12, :300, :400]
    values = 100 + 40 * np.sin(x / 9) + 30 * np.cos(y / 7) + z
    return values + np.random.default_rng(0).normal(scale=5, size=values.shape)


def test_parts_of_wide_planes_stand_for_them(waves, monkeypatch):
    volume = Volume(waves[None])
    (whole,) = measure_intensity(volume)
    read = []

    class Counted:
        """An image that notes how much of it is read."""

        def __init__(self, values):
            self.values, self.shape, self.ndim = values, values.shape, values.ndim
            self.dtype = values.dtype

        def __getitem__(self, index):
            return Counted(self.values[index])

        def __array__(self, dtype=None, copy=None):
            read.append(self.values.size)
            return np.asarray(self.values, dtype)

    for name, value in (("WIDEST", 200), ("RUNS", 6), ("RUN", 20)):
        monkeypatch.setattr(intensity, name, value)
    (part,) = measure_intensity(Volume(Counted(waves[None])))
    assert sum(read) == 12 * 120 * 120 and max(read) == 20 * 20
    assert part.center == pytest.approx(whole.center, abs=5)
    assert part.scale == pytest.approx(whole.scale, rel=0.1)


def test_no_value_that_is_not_finite_goes_unnoticed_in_what_is_read(waves):
    waves[3, 299, 399] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        measure_intensity(Volume(waves[None], name="w"))


def test_what_is_not_finite_is_found_where_it_is_read(waves):
    volume = Volume(np.stack([waves, waves]), name="w")
    measured = measure_intensity(volume)
    volume.image[1, 2, 5, 5] = np.inf
    region = (slice(-4, 1), slice(0, 9), slice(0, 9))
    with pytest.raises(InputError, match=r"w: channel 1 .* infinite values, in xy slice 2"):
        read_standardized(volume, region, measured)
    beside = (slice(3, 9), slice(0, 9), slice(0, 9))
    expected = standardize(volume.image[(slice(None), *beside)], measured)
    np.testing.assert_array_equal(read_standardized(volume, beside, measured), expected)


def test_values_too_large_for_a_network_are_refused():
    with pytest.raises(InputError, match="v: channel 0 holds values of 1e\\+200; divide"):
        measure_intensity(Volume(np.full((1, 3, 4, 5), 1e200), name="v"))


def test_a_window_is_told_from_the_median_in_standard_deviations(waves):
    plain, narrow = (
        measure_intensity(Volume(waves[None]), windows)[0] for windows in ((), (Window(0.5, 0.1),))
    )
    assert plain.window == Window() and narrow.window == Window(0.5, 0.1)
    assert narrow.center == pytest.approx(plain.center + 0.5 * plain.scale)
    assert narrow.scale == pytest.approx(0.1 * plain.scale)
    seen = standardize(waves[None], (narrow,))
    assert abs(seen.mean()) < 1e-3 and seen.std() == pytest.approx(1, abs=1e-3)


def test_the_statistics_of_several_volumes_keep_their_window(waves):
    window = Window(0.1, 0.3)
    several = [measure_intensity(Volume(k * waves[None]), (window,)) for k in (1, 2, 6)]
    (pooled,) = pooled_intensity(several)
    assert pooled.window == window
    assert pooled.scale == pytest.approx(3 * several[0][0].scale)
