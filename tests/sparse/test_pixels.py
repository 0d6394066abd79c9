from __future__ import annotations

import torch

from napari_volseg.sparse.learned_filters import LEARNED
from napari_volseg.sparse.pixels import PixelClassifier
from napari_volseg.sparse.position import with_region_position

SCALES = (1.0, 4.0)
VOXEL = (2.0, 1.0, 1.0)


def classifier(learned: bool = False) -> PixelClassifier:
    return PixelClassifier(1, 3, SCALES, VOXEL, position=True, learned=learned)


def test_one_opinion_sees_neither_the_place_nor_what_is_far():
    scales = (1.0, 2.0, 4.0, 8.0, 16.0)
    both = PixelClassifier(1, 3, scales, VOXEL, position=True).eval()
    region = tuple(slice(0, n) for n in (16, 32, 32))
    image = torch.randn(1, 1, 16, 32, 32, generator=torch.Generator().manual_seed(0))

    def logits(shape: tuple[int, int, int], image: torch.Tensor) -> torch.Tensor:
        placed = with_region_position(image[0], region, shape)[None]
        return both.over(both.responses(placed, region)).detach()

    here, elsewhere = logits((16, 32, 32), image), logits((99, 99, 99), image)
    assert here.shape == (2, 1, 3, 16, 32, 32)
    assert not torch.allclose(here[0], elsewhere[0])
    torch.testing.assert_close(here[1], elsewhere[1])
    seen = [len(opinion.columns) for opinion in (both.placed, both.near)]
    assert seen == [1 + 5 * 5 + 1 + 5 * 2 + 3, 1 + 4 * 5 + 1 + 4 * 5]


def test_only_the_opinion_that_knows_the_place_sees_learned_filters():
    without, both = classifier(), classifier(learned=True)
    assert len(both.near.columns) == len(without.near.columns)
    assert len(both.placed.columns) == len(without.placed.columns) + LEARNED
    region = tuple(slice(0, n) for n in (8, 16, 16))
    image = torch.randn(1, 1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    placed = with_region_position(image[0], region, (8, 16, 16))[None]
    responses = both.responses(placed, region)
    expected = torch.cat(without.responses(placed, region), 1)
    learned = both.learned.responses(image, region)
    # The place comes last, whatever comes before.
    parts = (expected[:, :-3], learned, expected[:, -3:])
    torch.testing.assert_close(torch.cat(responses, 1), torch.cat(parts, 1))


def test_an_opinion_is_the_same_of_voxels_in_rows_and_of_a_block():
    both = classifier().eval()
    features = torch.randn(1, both.placed.columns.numel(), 2, 3, 4)
    rows = both(features.flatten(2)[0].T)
    torch.testing.assert_close(both.over(features.split(7, 1)).flatten(3)[:, 0], rows.movedim(1, 2))
