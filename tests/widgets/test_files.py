"""What the dialogs suggest."""

from __future__ import annotations

import pytest
from qtpy.QtWidgets import QFileDialog

from napari_volseg.widgets.files import LABEL_SUFFIXES, ask_where_to_save, file_stem


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("kidney 3_labels", "kidney 3_labels"),
        ("a/b\\c: *?<b>\n_labels", "a_b_c_ ___b___labels"),
        ("../.hidden", "_.hidden"),
        ("", "volume"),
        ("Größe 5 µm", "Größe 5 µm"),
    ],
)
def test_a_name_becomes_part_of_the_name_of_a_file(name, stem):
    assert file_stem(name) == stem


def test_a_long_name_fits_and_keeps_its_end(tmp_path):
    stem = file_stem(200 * "\N{GRINNING FACE}" + "_annotation")
    assert stem.endswith("_annotation")
    (tmp_path / f".12345678.{stem}.ome.zarr").mkdir()


def test_what_is_suggested_lies_in_the_last_folder(tmp_path, monkeypatch):
    asked = []

    def answer(parent, title, start, *_):
        asked.append(start)
        return "", ""

    monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
    ask_where_to_save(None, {"folder": str(tmp_path)}, "Save", "a/b", LABEL_SUFFIXES)
    assert asked == [str(tmp_path / "a_b.ome.tif")]
