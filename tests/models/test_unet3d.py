from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.errors import InputError
from napari_volseg.data.volume import Volume
from napari_volseg.models.registry import get_architecture
from napari_volseg.models.unet3d import build, walk
from napari_volseg.models.unet3d_config import UNet3DConfig, auto
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.learned_filters import LearnedFilters, resolution
from napari_volseg.sparse.plan import plan_patch, plan_resolution, valid_size

SMALL = UNet3DConfig(channels=2, pooling=((2, 2, 2),) * 2, kernels=((3, 3, 3),) * 3)


def test_the_papers_network_has_the_papers_parameters():
    unet = get_architecture("unet3d")
    assert unet.paper_parameters() == 19_069_955
    with torch.device("meta"):
        module = build(UNet3DConfig(), 3, 3)
        plain = build(UNet3DConfig(normalization="none"), 3, 3)
    assert sum(p.numel() for p in module.parameters()) == 19_069_955 + 4_672
    assert sum(p.numel() for p in plain.parameters()) == 19_069_955
    assert not any(isinstance(layer, nn.BatchNorm3d) for layer in plain.modules())


def test_the_papers_tile_gives_the_papers_output():
    with torch.device("meta"):
        logits = build(UNet3DConfig(), 3, 3)(torch.empty(1, 3, 116, 132, 132))
    assert logits.shape == (1, 3, 28, 44, 44)
    assert UNet3DConfig().margin == (44, 44, 44)
    overlap_tile = walk(UNet3DConfig(), (64, 244, 248))
    assert (overlap_tile.core, overlap_tile.halo) == ((28, 44, 44), (44, 44, 44))
    assert overlap_tile.border == "mirror"


def test_channels_follow_figure_2():
    module = build(UNet3DConfig(), 3, 3)
    widths = [
        (layer.in_channels, layer.out_channels)
        for layer in module.modules()
        if isinstance(layer, nn.Conv3d)
    ]
    assert widths == [
        (3, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512),
        (768, 256), (256, 256), (384, 128), (128, 128), (192, 64), (64, 64), (64, 3),
    ]  # fmt: skip


FLAT = (12.0, 1.0, 1.0)
POOLING, KERNELS = resolution(FLAT)
LEARNED = UNet3DConfig(
    channels=8,
    pooling=POOLING,
    kernels=KERNELS,
    padding="same",
    test_statistics="running",
    position=True,
    learned_start=True,
)  # fmt: skip


def test_a_network_begins_as_learned_on_generated_volumes():
    assert KERNELS[0] == (1, 3, 3)
    module = build(LEARNED, 2, 3).eval()
    gray = torch.randn(1, 1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    place = torch.randn(1, 3, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = module.features(torch.cat([gray, gray, place], 1))
        assert not module.unet(torch.cat([gray, gray, place], 1)).any()
    torch.testing.assert_close(found, LearnedFilters(FLAT).unet(gray), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "other",
    [
        {"channels": 4},
        {"normalization": "none"},
        {"test_statistics": "batch"},
        {"pooling": ((2, 2, 2),), "kernels": ((3, 3, 3),) * 2},
    ],
)
def test_a_network_of_another_shape_begins_at_random(other):
    config = replace(LEARNED, **other)
    torch.manual_seed(0)
    module = build(config, 1, 2)
    torch.manual_seed(0)
    random = build(replace(config, learned_start=False), 1, 2)
    for one, two in zip(module.parameters(), random.parameters(), strict=True):
        assert torch.equal(one, two)


def opinionated(module: nn.Module) -> nn.Module:
    """Give a network an opinion: a fresh one starts without."""
    nn.init.normal_(module.classify.weight)
    return module


def test_a_fresh_network_has_no_opinion():
    logits = build(SMALL, 1, 3)(torch.randn(1, 1, 44, 44, 44))
    assert not logits.any()


def test_batch_normalization_uses_current_statistics_at_test_time():
    """Section 2: a shift of the whole tile is normalized away, also in evaluation mode."""
    torch.manual_seed(0)
    config = UNet3DConfig(channels=2, pooling=((2, 2, 2),), kernels=((3, 3, 3),) * 2)
    module = opinionated(build(config, 1, 2)).eval()
    image = torch.randn(1, 1, 24, 24, 24)
    assert module(image).std() > 0.01
    torch.testing.assert_close(module(image), module(image * 3 + 5), atol=1e-3, rtol=1e-3)


def test_running_statistics_are_the_other_choice():
    config = UNet3DConfig(channels=2, pooling=(), kernels=((3, 3, 3),), test_statistics="running")
    module = opinionated(build(config, 1, 2)).eval()
    image = torch.randn(1, 1, 8, 8, 8)
    assert not torch.allclose(module(image), module(image * 3 + 5), atol=1e-3)


def test_each_output_voxel_sees_its_margin_and_no_more():
    module = build(
        UNet3DConfig(
            channels=2, pooling=((1, 2, 2), (2, 2, 2)), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
            normalization="none",
        ), 1, 2,
    )  # fmt: skip
    opinionated(module)
    margin = module.config.margin
    size = valid_size((4, 4, 4), module.config.pooling, module.config.kernels)
    image = torch.randn(1, 1, *(n + 2 * m for n, m in zip(size, margin, strict=True)))
    image.requires_grad_()
    logits = module(image)
    assert logits.shape[2:] == size
    logits.square().sum().backward()
    seen = image.grad[0, 0] != 0
    for axis in range(3):
        along = seen.movedim(axis, 0).flatten(1).any(1)
        assert along[0] and along[-1]


def test_a_network_on_cells_sees_their_means_and_speaks_of_voxels():
    config = UNet3DConfig(
        channels=2, pooling=((1, 2, 2),), kernels=((1, 3, 3), (3, 3, 3)), padding="same",
        test_statistics="running", cells=(1, 2, 2),
    )  # fmt: skip
    assert config.divisor == (1, 4, 4)
    module = opinionated(build(config, 1, 2)).eval()
    image = torch.randn(1, 1, 8, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = module(image)
        swapped = image.clone()
        swapped[..., 4:6, 10:12] = image[..., 4:6, 10:12].flip(-1)
        torch.testing.assert_close(module(swapped), logits)
        middles = torch.stack([logits[..., 0::2], logits[..., 1::2]]).mean(0)[..., 1:-1]
        own = module.classify(module.features(functional.avg_pool3d(image, (1, 2, 2))))
    assert logits.shape == (1, 2, 8, 16, 24) and logits.std() > 0.01
    # Between two cells it is interpolated: along a row, their means are not far off.
    along = (own[:, :, :, :, :-2] + 6 * own[:, :, :, :, 1:-1] + own[:, :, :, :, 2:]) / 8
    down = torch.stack([middles[..., 0::2, :], middles[..., 1::2, :]]).mean(0)[..., 1:-1, :]
    down_own = (along[..., :-2, :] + 6 * along[..., 1:-1, :] + along[..., 2:, :]) / 8
    torch.testing.assert_close(down, down_own, atol=1e-5, rtol=1e-4)


@given(
    size=st.tuples(*[st.integers(1, 19)] * 3),
    classes=st.integers(2, 4),
    cells=st.sampled_from([(1, 1, 1), (2, 2, 2), (1, 2, 2)]),
)
def test_padded_network_keeps_any_size(size, classes, cells):
    config = UNet3DConfig(
        channels=2, pooling=((2, 2, 2),) * 2, kernels=((3, 3, 3),) * 3, padding="same",
        test_statistics="running", cells=cells,
    )  # fmt: skip
    logits = build(config, 2, classes).eval()(torch.zeros(1, 2, *size))
    assert logits.shape == (1, classes, *size)


def test_anisotropic_voxels_are_pooled_in_plane_first():
    pooling, kernels = plan_resolution((4.0, 1.0, 1.0), (40, 400, 400), 4)
    assert pooling == ((1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert kernels[0] == (1, 3, 3)
    assert kernels[-1] == (3, 3, 3)


def test_a_single_plane_is_never_pooled_across():
    pooling, kernels = plan_resolution((1.0, 1.0, 1.0), (1, 100, 100), 4)
    assert all(p[0] == 1 for p in pooling)
    assert all(k[0] == 1 for k in kernels)


@given(
    spacing=st.tuples(*[st.floats(0.1, 10)] * 3),
    shape=st.tuples(*[st.integers(1, 300)] * 3),
    levels=st.integers(1, 4),
)
def test_patches_fit_the_volume_and_the_pooling(spacing, shape, levels):
    pooling, _ = plan_resolution(spacing, shape, levels)
    patch = plan_patch(spacing, shape, pooling, 40**3)
    for axis in range(3):
        divisor = 1
        for pool in pooling:
            divisor *= pool[axis]
        assert patch[axis] % divisor == 0
        assert 0 < patch[axis] < shape[axis] + divisor
    assert patch[0] * patch[1] * patch[2] <= 8 * 40**3


@pytest.mark.parametrize(
    ("shape", "spacing", "training", "cells"),
    [
        ((60, 60, 60), (1.0, 1.0, 1.0), TrainingConfig(minutes=1), (2, 2, 2)),
        ((60, 60, 60), (6.0, 2.0, 2.0), TrainingConfig(minutes=1), (1, 2, 2)),
        ((5, 60, 60), (1.0, 1.0, 1.0), TrainingConfig(minutes=0.5), (1, 2, 2)),
        ((60, 60, 60), (1.0, 1.0, 1.0), TrainingConfig(minutes=60), (1, 1, 1)),
        ((60, 60, 60), (1.0, 1.0, 1.0), TrainingConfig(steps=100), (1, 1, 1)),
    ],
)
def test_on_a_cpu_it_sees_cells_where_minutes_are_few(shape, spacing, training, cells):
    annotation = Annotation(np.ones(shape, np.uint8))
    case = Case(Volume(np.zeros((1, *shape), np.uint8), spacing), annotation)
    config = auto([case], torch.device("cpu"), training)
    assert config.cells == cells
    for patch in (*config.patches, config.tile):
        assert all(side % d == 0 for side, d in zip(patch, config.divisor, strict=True))
    assert auto([case], torch.device("cuda"), training).cells == (1, 1, 1)


def test_settings_that_build_no_network_are_refused():
    with pytest.raises(InputError, match="even number"):
        UNet3DConfig(channels=7)
    with pytest.raises(InputError, match="one resolution step more"):
        UNet3DConfig(kernels=((3, 3, 3),))
    with pytest.raises(InputError, match="cells go with padding 'same'"):
        UNet3DConfig(cells=(1, 2, 2))
    with pytest.raises(InputError, match="must be odd"):
        UNet3DConfig(kernels=((2, 3, 3),) * 4)
