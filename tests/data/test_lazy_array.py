"""Arrays on disk: indexed as numpy's, read when asked, also where there are millions of chunks."""

from __future__ import annotations

import dask.array as da
import hypothesis.strategies as st
import numpy as np
import pytest
import zarr
from hypothesis import given, settings

from napari_volseg.data import ome_zarr
from napari_volseg.data.contents import Contents
from napari_volseg.data.errors import InputError
from napari_volseg.data.files import read_volume
from napari_volseg.data.lazy_array import LazyArray, cached, on_disk
from napari_volseg.data.tiles import read_block

SHAPE = (3, 4, 5)
PLACES = st.one_of(
    st.integers(0, 2),
    st.integers(-2, -1).map(np.int64),
    st.builds(slice, st.none() | st.integers(-6, 6), st.none() | st.integers(-6, 6)),
    st.builds(slice, st.none(), st.none(), st.integers(1, 3)),
    st.none(),
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("lazy") / "a.zarr"
    values = np.arange(60, dtype=">u2").reshape(SHAPE)
    array = zarr.create_array(path, shape=SHAPE, dtype=values.dtype, chunks=(2, 2, 2))
    array[...] = values
    return on_disk(array, path), values


@settings(max_examples=300, deadline=None)
@given(
    first=st.lists(PLACES, max_size=4),
    order=st.permutations(range(3)),
    second=st.lists(PLACES, max_size=3),
    dots=st.integers(0, 3),
)
def test_it_is_indexed_as_numpy_indexes(stored, first, order, second, dots):
    lazy, values = stored
    index = (*first[:dots], ..., *first[dots:])
    for one in (index, tuple(second)):
        try:
            expected = values[one]
        except IndexError:
            with pytest.raises(IndexError):
                lazy[one]
            return
        lazy, values = lazy[one], expected
        assert lazy.shape == values.shape and lazy.ndim == values.ndim
        if values.ndim == 3:
            lazy, values = lazy.transpose(order), values.transpose(order)
    read = np.asarray(lazy)
    np.testing.assert_array_equal(read, values)
    assert read.dtype == lazy.dtype and read.dtype.isnative


def test_what_goes_backward_or_lists_places_is_refused(stored):
    lazy, _ = stored
    with pytest.raises(IndexError, match="backward"):
        lazy[::-1]
    with pytest.raises((TypeError, IndexError)):
        lazy[[0, 2]]


def test_damage_that_is_met_names_the_file(stored, tmp_path):
    class Broken:
        shape, dtype, chunks = SHAPE, np.dtype("u1"), (2, 2, 2)

        def __getitem__(self, index):
            raise OSError("cut off")

    part = on_disk(Broken(), tmp_path / "a.zarr")[1]
    with pytest.raises(InputError, match=r"a\.zarr: damaged.*cut off"):
        np.asarray(part)


def test_a_petavoxel_is_opened_and_read_in_part(tmp_path):
    size, path = 100_000, tmp_path / "a.ome.zarr"
    image = np.broadcast_to(np.zeros((), np.uint8), (1, size, size, size))
    array = ome_zarr.create(path, Contents(image), (128, 128, 128))
    array[size - 200 :, 5:7, 70_000:70_003] = 9
    volume = read_volume(path)
    assert volume.shape == (size,) * 3
    block = read_block(volume, (slice(size - 3, size + 2), slice(4, 6), slice(69_999, 70_001)))
    assert block[0, :, 1, 1].tolist() == [9] * 5 and block.sum() == 45
    assert cached(volume.image[0]).shape == volume.shape  # a viewer waits for nothing either


def test_a_viewer_gets_dask_of_few_chunks(stored, monkeypatch):
    lazy, values = stored
    shown = cached(lazy.transpose([2, 0, 1]))
    assert isinstance(shown, da.Array) and shown.chunksize == (2, 2, 2)
    np.testing.assert_array_equal(np.asarray(shown), values.transpose(2, 0, 1))
    monkeypatch.setattr("napari_volseg.data.lazy_array.MANY_CHUNKS", 3)
    assert isinstance(cached(lazy), LazyArray)
    assert cached(values) is values
