"""The convolution: the same as torch's, and none that torch would take its slow kernel for."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from napari_volseg.sparse.convolution import HAS_ONEDNN, SMALL, Conv3d, is_small

SIDES = (10, 12, 16)


@pytest.mark.parametrize(
    ("batch", "kernel", "settings"),
    [
        (1, 3, {"padding": 1}),
        (1, (1, 3, 3), {"padding": (0, 1, 1), "bias": False}),
        (1, 3, {"stride": (1, 2, 2), "padding": 1}),
        (1, 5, {"dilation": 2, "padding": 4}),
        (1, 1, {}),
        (2, 3, {"padding": 1}),
    ],
)
def test_values_and_gradients_are_those_of_torch(batch, kernel, settings):
    torch.manual_seed(0)
    ours, theirs = Conv3d(4, 6, kernel, **settings), nn.Conv3d(4, 6, kernel, **settings)
    theirs.load_state_dict(ours.state_dict())
    image = torch.randn(batch, 4, *SIDES)
    found, made = [], []
    for layer, kept in ((ours, found), (theirs, made)):
        seen = image.clone().requires_grad_()
        out = layer(seen)
        weights = torch.linspace(-1, 1, out.numel()).view(out.shape)
        (out * weights).sum().backward()
        kept += [out, seen.grad, *(p.grad for p in layer.parameters())]
    assert_close(found, made)


@pytest.mark.skipif(not HAS_ONEDNN, reason="this torch has no oneDNN")
@pytest.mark.parametrize(("batch", "channels"), [(1, 4), (1, SMALL // 100), (2, 4)])
def test_no_image_is_left_to_the_slow_kernel(batch, channels):
    layer, image = Conv3d(channels, 2, 3), torch.zeros(batch, channels, *SIDES)
    with torch.profiler.profile() as profile:
        layer(image)
    called = {event.key for event in profile.key_averages()}
    assert "aten::mkldnn_convolution" in called
    assert not any("slow_conv3d" in name for name in called)


@pytest.mark.skipif(not HAS_ONEDNN, reason="this torch has no oneDNN")
@pytest.mark.parametrize(
    ("rows", "slow"), [(12, True), (SMALL // 40, True), (SMALL // 40 + 1, False)]
)
def test_small_is_what_torch_has_a_slow_kernel_for(rows, slow):
    """Where torch draws the line elsewhere one day, this is to be moved."""
    image = torch.zeros(1, 4, 10, rows, 3)
    with torch.profiler.profile() as profile:
        nn.functional.conv3d(image, torch.zeros(2, 4, 3, 3, 3))
    called = {event.key for event in profile.key_averages()}
    assert any("slow_conv3d" in name for name in called) == slow == is_small(image)
