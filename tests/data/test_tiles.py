from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_volseg.data.tiles import meet, mirror_indices, read_block, relative, tile_grid
from napari_volseg.data.volume import Volume

sizes = st.tuples(*[st.integers(1, 23)] * 3)
halos = st.tuples(*[st.integers(0, 5)] * 3)
steps = st.tuples(*[st.sampled_from([1, 2, 4])] * 3)
multiples = st.tuples(*[st.integers(0, 3)] * 3)


def volume_of(shape: tuple[int, int, int]) -> Volume:
    return Volume(np.arange(np.prod(shape), dtype=np.uint16).reshape(1, *shape))


@given(shape=sizes, halo=halos, align=steps, multiple=multiples)
def test_clipped_tiles_cover_every_voxel_once_with_their_context(shape, halo, align, multiple):
    core = tuple(m * a for m, a in zip(multiple, align, strict=True))
    hits = np.zeros(shape, dtype=int)
    for tile in tile_grid(shape, core, halo, "clip", align):
        hits[tile.write] += 1
        for axis in range(3):
            read, write, trim = tile.read[axis], tile.write[axis], tile.trim[axis]
            assert 0 <= read.start <= max(0, write.start - halo[axis])
            assert read.stop == min(shape[axis], write.stop + halo[axis])
            assert read.start % align[axis] == 0
            assert (trim.start, trim.stop) == (write.start - read.start, write.stop - read.start)
    assert (hits == 1).all()


@given(shape=sizes, halo=halos, core=st.tuples(*[st.integers(1, 9)] * 3))
def test_mirrored_tiles_have_one_size_and_read_what_numpy_mirrors(shape, halo, core):
    volume = volume_of(shape)
    hits = np.zeros(shape, dtype=int)
    tiles = tile_grid(shape, core, halo, "mirror")
    for tile in tiles:
        hits[tile.write] += 1
        assert tuple(r.stop - r.start for r in tile.read) == tuple(
            c + 2 * h for c, h in zip(core, halo, strict=True)
        )
    assert (hits == 1).all()
    last = tiles[-1]
    block = read_block(volume, last.read)
    padding = [
        (max(0, -r.start), max(0, r.stop - n)) for r, n in zip(last.read, shape, strict=True)
    ]
    mirrored = np.pad(volume.image[0], padding, mode="reflect")
    shifted = tuple(
        slice(r.start + p[0], r.stop + p[0]) for r, p in zip(last.read, padding, strict=True)
    )
    np.testing.assert_array_equal(block[0], mirrored[shifted])


def test_two_tiles_by_hand():
    first, second = tile_grid((1, 1, 10), (1, 1, 6), (0, 0, 2), "clip", (1, 1, 2))
    assert (first.read[2], first.write[2], first.trim[2]) == (slice(0, 8), slice(0, 6), slice(0, 6))
    assert (second.read[2], second.write[2]) == (slice(4, 10), slice(6, 10))
    assert second.trim[2] == slice(2, 6)


def test_mirror_does_not_repeat_the_border():
    np.testing.assert_array_equal(mirror_indices(-3, 6, 4), [3, 2, 1, 0, 1, 2, 3, 2, 1])
    np.testing.assert_array_equal(mirror_indices(-2, 2, 1), [0, 0, 0, 0])


def test_only_what_is_asked_for_is_read():
    class Recording:
        shape, ndim, dtype = (1, 50, 60, 70), 4, np.dtype("uint8")
        asked: tuple[slice, ...] = ()

        def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
            self.asked = key
            return np.zeros(
                [len(range(n)[k]) for k, n in zip(key, self.shape, strict=True)], "uint8"
            )

    image = Recording()
    read_block(Volume(image), (slice(-4, 6), slice(10, 20), slice(60, 72)))
    assert image.asked[1:] == (slice(0, 6), slice(10, 20), slice(60, 70))


sides = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda s: slice(min(s), max(s)))
regions = st.tuples(sides, sides, sides)


@given(one=regions, other=regions)
def test_regions_meet_where_both_are(one, other):
    in_both = np.zeros((2, 9, 9, 9), dtype=bool)
    in_both[0][one], in_both[1][other] = True, True
    found = np.zeros((9, 9, 9), dtype=bool)
    common = meet(one, other)
    found[common] = True
    np.testing.assert_array_equal(found, in_both.all(0))
    if found.any():
        voxels = np.arange(9**3).reshape(9, 9, 9)
        np.testing.assert_array_equal(voxels[one][relative(common, one)], voxels[common])


def test_core_that_breaks_pooling_is_refused():
    with pytest.raises(ValueError, match="not a multiple"):
        tile_grid((10, 10, 10), (3, 4, 4), align=(2, 2, 2))


def test_a_grid_of_more_tiles_than_memory_holds_knows_each_of_them():
    grid = tile_grid((100_000,) * 3, (128,) * 3, (10,) * 3)
    assert len(grid) == 782**3
    tile = grid[782**2 + 2 * 782 + 3]
    assert tile.write == (slice(128, 256), slice(256, 384), slice(384, 512))
    assert grid[-1].write == (slice(781 * 128, 100_000),) * 3
    assert grid[len(grid) - 2 :] == [grid[-2], grid[-1]]
    assert {s.stop - s.start for s in grid.largest.read} == {148}
    with pytest.raises(IndexError):
        grid[len(grid)]


@pytest.mark.parametrize("part", [slice(0, 1), slice(5, 6), slice(4, 9), slice(9, 10)])
def test_tiles_that_meet_a_region_are_those_that_write_some_of_it(part):
    grid = tile_grid((10, 10, 10), (5, 4, 3), (2, 2, 2))
    region = (part, slice(3, 5), slice(0, 10))
    expected = [tile for tile in grid if all(s.start < s.stop for s in meet(tile.write, region))]
    assert expected
    assert list(grid.meeting(region)) == expected == grid.meeting(region)[:]
