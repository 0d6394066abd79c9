from __future__ import annotations

import errno

import pytest

from napari_volseg.data.atomic import replacing, saving
from napari_volseg.data.errors import InputError


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "mask.ome.tif"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.name.endswith("mask.ome.tif")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_a_folder(tmp_path):
    path = tmp_path / "mask.zarr"
    for content in ("old", "new"):
        with replacing(path) as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [p.name for p in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("folder", [False, True])
def test_a_failure_leaves_what_was_there(tmp_path, folder):
    path = tmp_path / "mask"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), replacing(path) as temporary:
        if folder:
            temporary.mkdir()
        else:
            temporary.write_text("half")
        raise RuntimeError("stop")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_why_a_file_cannot_be_saved_is_said_in_one_line(tmp_path):
    path = tmp_path / "none" / "a.csv"
    with pytest.raises(InputError, match="no such folder"), saving(path):
        raise AssertionError("it began")
    path = tmp_path / "a.csv"
    path.write_text("old")
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(InputError, match=r"a\.csv: cannot be written \(No space") as raised:
        with saving(path) as temporary:
            temporary.write_text("half")
            raise full
    assert raised.value.__cause__ is full
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
