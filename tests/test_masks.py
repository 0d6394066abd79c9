"""The commands on finished masks: compare and surfaces."""

from __future__ import annotations

import json

import numpy as np
import pytest
import trimesh

from napari_volseg import write_labels
from napari_volseg.data.annotation import LabelClass
from napari_volseg.data.files import write_volume
from napari_volseg.data.volume import Volume

CLASSES = (LabelClass(1, "background", "#8a8f98"), LabelClass(2, "ball", "#e69f00"))


@pytest.fixture
def case(tmp_path):
    """A folder with an image, its truth of two balls, and a prediction of one and a bit."""
    z, y, x = np.indices((12, 24, 48))
    balls = [(2 * (z - 6)) ** 2 + (y - 12) ** 2 + (x - c) ** 2 < 64 for c in (12, 34)]
    truth = 1 + (balls[0] | balls[1]).astype(np.uint8)
    prediction = truth.copy()
    prediction[:, :, 24:] = 1
    prediction[1:4, 1:4, 40:44] = 2
    volume = Volume((80 * truth)[None], (2.0, 1.0, 1.0), "micrometer")
    write_volume(tmp_path / "image.ome.tif", volume)
    write_labels(tmp_path / "truth.ome.tif", truth, volume, CLASSES)
    write_labels(tmp_path / "prediction.ome.tif", prediction, volume, CLASSES)
    np.save(tmp_path / "from_zero.npy", truth - 1)
    return tmp_path


def compare(case, *more):
    masks = (case / "prediction.ome.tif", case / "truth.ome.tif")
    return ("compare", *masks, "-o", case / "report.html", *more)


def test_compare_prints_figures_and_objects_and_writes_a_page(run, case):
    code, out, err = run(*compare(case, "--image", case / "image.ome.tif"))
    assert code == 0, err
    assert "ASD (micrometer)" in out
    header, row, written = out.splitlines()[-3:]
    assert written == str(case / "report.html")
    counts = dict(zip(header.replace("in ", "in_").split()[1:], row.split()[2:], strict=True))
    assert row.startswith("2 ball")
    assert counts == {
        **{"matched": "1", "split": "0", "merged": "0", "missed": "1", "extra": "1"},
        **{"in_A": "2", "in_B": "2"},
    }
    page = (case / "report.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 12
    assert "prediction.ome.tif" in page


def test_compare_gives_json_that_agrees_with_evaluate(run, case):
    _, out, _ = run(*compare(case, "--json"))
    document = json.loads(out)
    masks = (case / "prediction.ome.tif", case / "truth.ome.tif")
    evaluation = json.loads(run("evaluate", *masks, "--json")[1])
    assert {key: document[key] for key in evaluation} == evaluation
    assert document["objects"]["2"]["missed"] == 1
    assert document["report"] == str(case / "report.html")


def test_compare_asks_what_0_means(run, refused, case):
    files = (case / "prediction.ome.tif", case / "from_zero.npy", "-o", case / "report.html")
    error = refused("compare", *files)
    assert "say --unlabeled none" in error
    assert not (case / "report.html").exists()
    code, out, _ = run("compare", *files, "--unlabeled", "none", "--json")
    assert code == 0
    assert json.loads(out)["objects"]["2"]["missed"] == 1
    code, out, _ = run("compare", *files, "--unlabeled", 0, "--json")
    assert list(json.loads(out)["classes"]) == ["1", "2"]


def test_compare_refuses_in_one_line(refused, case):
    assert "end its name with .html" in refused(*compare(case)[:3], "-o", case / "report.pdf")
    assert "nothing.tif: no such file" in refused(*compare(case, "--image", case / "nothing.tif"))
    np.save(case / "small.npy", np.ones((2, 2, 2), np.uint8))
    assert "small.npy" in refused(*compare(case, "--image", case / "small.npy"))
    error = refused("compare", case / "small.npy", case / "truth.ome.tif", "-o", case / "r.html")
    assert "give masks of the same volume" in error
    assert not list(case.glob("*.html"))


def test_surfaces_are_one_file_or_one_for_each_object(run, case):
    code, out, err = run("surfaces", case / "truth.ome.tif", "-o", case / "all.ply")
    assert code == 0, err
    assert "ball: 2 objects" in out
    assert "micrometer^3" in out
    together = trimesh.load_mesh(case / "all.ply")
    code, out, _ = run("surfaces", case / "truth.ome.tif", "-o", case / "parts")
    assert out.splitlines()[-1] == f"2 files in {case / 'parts'}"
    code, out, _ = run("surfaces", case / "truth.ome.tif", "-o", case / "parts", "--json")
    rows = json.loads(out)
    assert [(row["object"], row["class"], row["unit"]) for row in rows] == [
        (1, "ball", "micrometer"),
        (2, "ball", "micrometer"),
    ]
    assert sorted(str(p) for p in (case / "parts").iterdir()) == [row["file"] for row in rows]
    for row in rows:
        part = trimesh.load_mesh(row["file"])
        assert part.is_watertight
        assert part.volume == pytest.approx(row["volume"], rel=1e-4)
        assert part.volume == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.06)
    assert together.volume == pytest.approx(sum(row["volume"] for row in rows), rel=1e-4)


def test_surfaces_of_labels_that_no_image_has_are_in_voxels(run, case):
    np.save(case / "wide.npy", (np.load(case / "from_zero.npy") + 1).astype(np.int64))
    code, out, err = run("surfaces", case / "wide.npy", "-o", case / "parts", "--json")
    assert code == 0
    assert "surfaces are in voxels" in err
    assert {row["unit"] for row in json.loads(out)} == {"pixel"}


def test_surfaces_refuses_in_one_line(refused, case):
    def error(*more, mask="truth.ome.tif"):
        return refused("surfaces", case / mask, *more)

    assert "no object of 8 voxels" in error("-o", case / "parts", mask="from_zero.npy")
    assert "give one of stl, obj, ply" in error("-o", case / "parts", "--format", "gltf")
    assert "--format is for a folder" in error("-o", case / "a.stl", "--format", "obj")
    assert "--smooth is -1" in error("-o", case / "a.stl", "--smooth", -1)
    assert "is no folder" in error("-o", case / "image.ome.tif")
    assert "overwritten" in error("-o", case / "truth.ome.tif")
    assert not (case / "parts").exists()
