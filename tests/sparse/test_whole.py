"""Whole volumes: resampling spans the same space and skips nothing."""

from __future__ import annotations

import torch

from napari_volseg.sparse.whole import pad_to_multiple, resample


def test_resampling_keeps_a_ramp_and_thin_structures():
    ramp = torch.linspace(0, 1, 24).reshape(1, 1, 1, 24, 1).expand(1, 2, 9, 24, 7)
    small = resample(ramp, (9, 8, 7))
    assert small.shape == (1, 2, 9, 8, 7)
    assert torch.allclose(small.mean(), ramp.mean(), atol=1e-6)
    assert (small.diff(dim=3) > 0).all()
    thin = torch.zeros(1, 1, 16, 16, 16)
    thin[..., 5] = 1
    assert (resample(thin, (4, 4, 4)).amax(dim=4) == 0.25).all()


def test_resampling_both_ways_at_once_returns_the_size_asked_for():
    image = torch.rand(1, 1, 5, 20, 11)
    assert resample(image, (9, 7, 11)).shape == (1, 1, 9, 7, 11)
    assert torch.equal(resample(image, (5, 20, 11)), image)


def test_padding_reaches_the_next_multiple_at_the_ends():
    image = torch.rand(1, 2, 5, 8, 3) + 1
    padded = pad_to_multiple(image, (4, 4, 2))
    assert padded.shape == (1, 2, 8, 8, 4)
    assert torch.equal(padded[..., :5, :, :3], image)
    assert not padded[..., 5:, :, :].any()
    repeated = pad_to_multiple(image, (4, 4, 2), "replicate")
    assert torch.equal(repeated[..., 7, :, 3], image[..., 4, :, 2])
