from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_volseg.models.registry import get_architecture
from napari_volseg.models.unet2d import BaselineConfig, build, probabilities, walk

SLICES = BaselineConfig(channels=2, thickness=1, levels=3, tile=(1, 16, 16))
SMALL = BaselineConfig(channels=2, thickness=3, levels=2, tile=(8, 8, 8))
both = pytest.mark.parametrize("config", [SLICES, SMALL], ids=["slices", "3d"])


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "count"), [("unet2d", 8_629_921), ("unet3d_small", 1_618_489)])
def test_the_papers_counts(name, count):
    assert get_architecture(name).paper_parameters() == count


@both
@given(size=st.tuples(*[st.integers(1, 19)] * 3), classes=st.integers(2, 4))
def test_any_size_gives_its_own_size(config, size, classes):
    assert build(config, 1, classes)(noise(*size)).shape == (1, classes, *size)


def test_a_slice_sees_no_other_slice():
    module = build(SLICES, 1, 2)
    one = noise(5, 16, 16)
    other = one.clone()
    other[:, :, [0, 1, 3, 4]] = 7.0
    torch.testing.assert_close(module(one)[:, :, 2], module(other)[:, :, 2])


@both
def test_the_reach_covers_what_an_output_voxel_sees(config):
    """A tile's core, with the context that the walk reads, is predicted as in the whole."""
    torch.manual_seed(0)
    module = build(config, 1, 3)
    image = noise(3, 151, 4) if config is SLICES else noise(70, 6, 5)
    axis = 1 if config is SLICES else 0
    steps = walk(config, tuple(image.shape[2:]))
    start = 64 if config is SLICES else 32
    size = image.shape[axis + 2]
    region = [slice(0, n) for n in image.shape[2:]]
    region[axis] = slice(start, start + steps.core[axis])
    whole = probabilities(module, config, image, tuple(region))
    first = max(0, start - -(-steps.halo[axis] // steps.align[axis]) * steps.align[axis])
    last = min(size, start + steps.core[axis] + steps.halo[axis])
    block = image.narrow(axis + 2, first, last - first)
    region[axis] = slice(start - first, start - first + steps.core[axis])
    torch.testing.assert_close(probabilities(module, config, block, tuple(region)), whole)


def test_two_classes_share_one_sigmoid():
    module = build(SLICES, 1, 2)
    image = noise(1, 8, 8)
    found = probabilities(module, SLICES, image, (slice(0, 1), slice(0, 8), slice(0, 8)))
    raw = module(image)[0, 1]
    torch.testing.assert_close(found[1], raw.sigmoid())
