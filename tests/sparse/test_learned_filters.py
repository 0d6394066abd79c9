from __future__ import annotations

import pytest
import torch

from napari_volseg.data.tiles import crop_around
from napari_volseg.sparse import learned_filters
from napari_volseg.sparse.learned_filters import (
    LEARNED,
    LearnedFilters,
    cells_of,
    folded,
    learned_alignment,
    learned_reach,
    learned_weights,
    resolution,
)

VOXELS = [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.57, 1.0, 1.0), (5.0, 1.0, 1.0), (12.0, 1.0, 1.0)]


def noise(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def whole(image: torch.Tensor):
    z, y, x = (slice(0, n) for n in image.shape[2:])
    return z, y, x


@pytest.mark.parametrize("voxel", VOXELS)
def test_a_block_with_what_it_sees_around_has_the_responses_of_the_whole(voxel):
    filters = LearnedFilters(voxel)
    reach, align = learned_reach(voxel), learned_alignment(voxel)
    shape = tuple(min(2 * r + 3 * a + 5, 150) for r, a in zip(reach, align, strict=True))
    image = noise((1, 2, *shape))
    core = tuple(slice(n // 2, n // 2 + 7) for n in shape)
    expected = filters.responses(image, whole(image))[(..., *core)]
    seen, within = crop_around(core, reach, align, shape)
    assert any(side.stop - side.start < n for side, n in zip(seen, shape, strict=True))
    found = filters.responses(image[(..., *seen)], within)
    assert found.shape == (1, 2 * LEARNED, 7, 7, 7)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("voxel", VOXELS[:4])
def test_what_is_beyond_its_reach_changes_nothing(voxel):
    filters = LearnedFilters(voxel)
    image = noise((1, 1, 24, 130, 40))
    core = (slice(8, 16), slice(0, 4), slice(8, 16))
    far = image.clone()
    far[:, :, :, 4 + learned_reach(voxel)[1] + learned_alignment(voxel)[1] :] += 5
    assert not torch.equal(far, image)
    torch.testing.assert_close(
        filters.responses(far, core), filters.responses(image, core), atol=1e-5, rtol=0
    )
    near = image.clone()
    near[:, :, :, 4:20] += 5
    assert not torch.allclose(filters.responses(near, core), filters.responses(image, core))


def test_each_channel_has_responses_of_its_own():
    filters = LearnedFilters((1.0, 1.0, 1.0))
    image = noise((2, 3, 9, 17, 21))
    together = filters.responses(image, whole(image))
    for channel in range(3):
        own = filters.responses(image[:, channel : channel + 1], whole(image))
        part = together[:, channel * LEARNED : (channel + 1) * LEARNED]
        torch.testing.assert_close(part, own, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("voxel", "cells"),
    [((1, 1, 1), (2, 2, 2)), ((2.24, 1, 1), (1, 2, 2)), ((0.3, 0.1, 0.1), (1, 2, 2))],
)
def test_cells_are_as_deep_as_wide_as_far_as_voxels_allow(voxel, cells):
    assert cells_of(voxel) == cells


def test_where_slices_lie_far_apart_kernels_are_flat_and_see_a_constant_alike():
    voxel = (12.0, 1.0, 1.0)
    assert resolution(voxel)[1][0] == (1, 3, 3)
    flat, full = LearnedFilters(voxel), LearnedFilters((1.0, 1.0, 1.0))
    name = "down_0_0_weight"
    torch.testing.assert_close(getattr(flat, name)[:, :, 0], getattr(full, name).sum(2))
    assert flat.lift_1_weight.shape[2] == 1


def test_they_are_kept_with_a_model_and_never_trained(monkeypatch):
    filters = LearnedFilters((1.0, 1.0, 1.0))
    assert not list(filters.parameters())
    kept = filters.state_dict()
    assert len(kept) == len(folded(learned_weights()))
    other = {name: torch.zeros_like(w) for name, w in learned_weights().items()}
    monkeypatch.setattr(learned_filters, "learned_weights", lambda: other)
    later = LearnedFilters((1.0, 1.0, 1.0))
    image = noise((1, 1, 8, 8, 8))
    assert not later.responses(image, whole(image)).any()
    later.load_state_dict(kept)
    expected = filters.responses(image, whole(image))
    torch.testing.assert_close(later.responses(image, whole(image)), expected)
