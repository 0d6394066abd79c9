from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from napari_volseg import read_annotation, write_labels
from napari_volseg.data.digits import digits
from napari_volseg.data.files import write_volume
from napari_volseg.data.volume import Volume

NARROW = {"widths": [4, 8, 16, 16], "hidden": 32, "learning_rate": 0.003, "batch_size": 12}
QUICK = ("--steps", "30", "--device", "cpu", "--no-turns", "--no-flips")
QUICK += ("--options", json.dumps(NARROW))


@pytest.fixture
def case(tmp_path):
    """A folder with six digits 0 and 1 in a row, their mask, and four of them as examples."""
    images, values = digits(6, kinds=(0, 1), rotation_degrees=10)
    image = (np.concatenate(list(images), axis=2)[None] * 200).astype(np.uint8)
    volume = Volume(image, (2.0, 1.0, 1.0), "micrometer")
    write_volume(tmp_path / "image.ome.tif", volume)
    mask = 1 + (image[0] > 60).astype(np.uint8)
    write_labels(tmp_path / "mask.ome.tif", mask, volume)
    lines = ["z,y,x,class"]
    for i in range(4):
        z, y, x = np.argwhere(mask[:, :, 16 * i : 16 * i + 16] == 2)[0]
        lines.append(f"{z},{y},{x + 16 * i},{('ring', 'bar')[values[i]]}")
    (tmp_path / "examples.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def files(case, examples="examples.csv"):
    return (case / "image.ome.tif", case / "mask.ome.tif", case / examples)


def test_models_lists_it_with_its_parameters(run):
    _, out, _ = run("models", "--json")
    row = next(row for row in json.loads(out) if row["name"] == "vgg13_3d")
    assert (row["parameters"], row["labels"]) == (14_104_982, "objects")
    assert {r["labels"] for r in json.loads(out) if r["name"] != "vgg13_3d"} == {"voxels"}
    assert "VGG13-3D, labels objects" in run("models")[1]


def test_a_few_examples_label_every_object_and_fill_a_table(run, case):
    output, table = case / "classes.ome.tif", case / "table.csv"
    code, out, err = run(
        *("classify-objects", *files(case), "-o", output, "--table", table, "--json"), *QUICK
    )
    assert code == 0, err
    document = json.loads(out)
    assert document["labels"] == str(output)
    found = document["objects"]
    assert [row["class"] for row in sorted(found, key=lambda r: r["center_x_micrometer"])] == [
        *("ring", "bar") * 3
    ]
    assert sum(row["given"] for row in found) == 4
    labels = read_annotation(output)
    assert [(c.id, c.name) for c in labels.classes] == [(1, "background"), (2, "bar"), (3, "ring")]
    assert (labels.labels > 1).sum() == sum(row["voxels"] for row in found)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("object", "class", "label", "probability", "given", "voxels"),
        *("center_z_micrometer", "center_y_micrometer", "center_x_micrometer"),
    ]
    assert [row["class"] for row in rows] == [row["class"] for row in found]


def test_a_corrected_table_is_a_file_of_examples(run, case):
    (case / "table.csv").write_text("object,class,voxels\n1,bar,7\n2,ring,8\n3,bar,9\n")
    code, out, _ = run(
        *("classify-objects", *files(case, "table.csv"), "-o", case / "classes.tif"),
        *("--smallest", 20, *QUICK),
    )
    assert code == 0
    assert out.startswith("6 objects, 3 of them examples: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("z,y,class\n1,2,a\n", "columns z, y, class; name them,"),
        ("", "columns none"),
        ("object,class\n1,a\n2,\n", "line 3: no class"),
        ("object,class\n1,a\n1,b\n", "line 3: object 1 is 'a' in an earlier line"),
        ("object,class\n1,a\n77,b\n", "line 3: no object 77"),
        ("object,class\none,a\n", "line 2: object is 'one'; give whole numbers"),
        ("z,y,x,class\n0,0,0,a\n", "line 2: no object at voxel (0, 0, 0)"),
        ("z,y,x,class\n1,2\n", "line 2: z, y, x is '1, 2, '; give whole numbers"),
        ("object,class\n1,a\n2,a\n", "examples of 1 classes"),
    ],
)
def test_examples_that_cannot_be_used_are_named(refused, case, text, words):
    (case / "bad.csv").write_text(text)
    output = case / "classes.tif"
    error = refused("classify-objects", *files(case, "bad.csv"), "-o", output, *QUICK)
    assert f"{case / 'bad.csv'}" in error
    assert words in error
    assert not output.exists()


def test_other_mistakes_are_one_line(refused, case):
    image, mask, examples = files(case)
    output = case / "classes.tif"
    end = ("-o", output, *QUICK)
    assert "nothing.csv: no such file" in refused(
        "classify-objects", image, mask, case / "nothing.csv", *end
    )
    assert "not a CSV" in refused("classify-objects", image, mask, image, *end)
    assert "overwritten" in refused("classify-objects", image, mask, examples, "-o", mask)
    twice = ("--table", output)
    assert "twice" in refused("classify-objects", image, mask, examples, *end, *twice)
    assert "context is 0.5" in refused(
        "classify-objects", image, mask, examples, *end, "--context", 0.5
    )
    np.save(case / "empty.npy", np.ones((16, 16, 96), np.uint8))
    error = refused("classify-objects", image, case / "empty.npy", examples, *end)
    assert "empty.npy: no object" in error
    assert "--unlabeled none" in error
    np.save(case / "small.npy", np.full((4, 4, 4), 2, np.uint8))
    error = refused("classify-objects", image, case / "small.npy", examples, *end)
    assert "small.npy" in error
    assert "shape" in error
    assert not output.exists()


def test_train_says_what_to_use_instead(refused, case):
    image, mask, _ = files(case)
    error = refused("train", image, mask, "-o", case / "m.volseg", "--model", "vgg13_3d")
    assert "classify-objects" in error
