"""Gray-value statistics: read from all of a volume, or from what stands for it."""

from __future__ import annotations

import numpy as np
import pytest

from napari_volseg.data import intensity
from napari_volseg.data.intensity import measure_intensity
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
