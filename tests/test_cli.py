from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest

from napari_volseg import (
    Annotation,
    Suggestion,
    __version__,
    load_model,
    read_annotation,
    read_volume,
    suggest,
    write_labels,
)
from napari_volseg.cli import main
from napari_volseg.cli.train import read_cases
from napari_volseg.data.errors import InputError
from napari_volseg.data.files import write_volume
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.data.volume import Volume
from napari_volseg.inference import large
from napari_volseg.sparse.config import TrainingConfig

SPACING = (2.0, 1.0, 0.5)
SHAPE = (8, 20, 24)
TINY = {
    "channels": 2,
    "pooling": [[1, 2, 2]],
    "kernels": [[1, 3, 3], [3, 3, 3]],
    "padding": "same",
    "patches": [[8, 16, 16]],
    "tile": [8, 20, 24],
}
QUICK = ("--steps", "4", "--device", "cpu", "--options", json.dumps(TINY))


def ball():
    z, y, x = np.ogrid[tuple(slice(n) for n in SHAPE)]
    labels = np.ones(SHAPE, dtype=np.uint8)
    labels[(2 * (z - 4)) ** 2 + (y - 10) ** 2 + (x - 12) ** 2 < 50] = 2
    return labels


def write_case(folder, channels=1, seed=0):
    """Write image.ome.tif, annotation.tif and truth.tif, and return the folder."""
    truth = ball()
    noise = np.random.default_rng(seed).normal(0, 5, (channels, *SHAPE))
    image = (60 + 100 * (truth == 2) + noise).clip(0, 255).astype(np.uint8)
    volume = Volume(image, SPACING, "micrometer")
    annotation = np.zeros_like(truth)
    annotation[4], annotation[:, 10], annotation[:, :, 12] = truth[4], truth[:, 10], truth[:, :, 12]
    folder.mkdir(exist_ok=True)
    write_volume(folder / "image.ome.tif", volume)
    write_labels(folder / "annotation.tif", annotation, volume)
    write_labels(folder / "truth.tif", truth, volume)
    return folder


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return write_case(tmp_path_factory.mktemp("data") / "case")


@pytest.fixture(scope="module")
def model(case, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "ball.volseg"
    files = (str(case / "image.ome.tif"), str(case / "annotation.tif"))
    assert main(["train", *files, "-o", str(path), *QUICK]) == 0
    return path


# What it can do


def test_help_names_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    for command in (
        "demo",
        "models",
        "train",
        "predict",
        "evaluate",
        "suggest",
        "classify-objects",
    ):
        assert command in out


def test_help_and_mistakes_do_not_wait_for_torch():
    code = """
import sys
from napari_volseg.cli import main
assert main(["train", "--help"]) == 0
assert main(["train", "--mnutes", "3"]) == 2
assert not {"torch", "napari"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_version(run):
    assert run("--version")[:2] == (0, f"{__version__}\n")


def test_every_field_of_the_training_config_is_an_option_with_help(run):
    _, out, _ = run("train", "--help")
    for field in fields(TrainingConfig):
        assert f"--{field.name.replace('_', '-')}" in out
    assert "Probability that a patch is rotated" in out


def test_models_lists_the_paper_with_its_parameters(run):
    code, out, _ = run("models", "--json")
    assert code == 0
    unet = next(row for row in json.loads(out) if row["name"] == "unet3d")
    assert unet["parameters"] == 19_069_955
    assert unet["parameters_with_normalization"] == 19_069_955 + 4_672
    assert "2016" in unet["paper"]
    _, table, _ = run("models")
    assert "19,069,955 parameters (19,074,627 with normalization)" in table


def test_train_saves_a_model_with_its_settings(run, case, tmp_path):
    output = tmp_path / "m.volseg"
    code, out, err = run(
        *("train", case / "image.ome.tif", case / "annotation.tif", "-o", output, *QUICK),
        *("--seed", 5, "--class-weights", "1,2.5", "--no-flips", "--json"),
    )
    assert code == 0
    document = json.loads(out)
    memory = document["memory"]
    assert 0 < memory["needed_bytes"] < memory["free_bytes"] and memory["made_smaller"] == ""
    assert re.search(r"training with CPU.*; needs about \d+\.\d GB of \d+\.\d GB free\n", err)
    assert document["model"] == str(output)
    assert document["steps"] == 4
    assert document["interrupted"] is False
    assert document["held_out"]["views"].keys() == {"xy", "xz", "yz"}
    assert document["held_out"]["unit"] == "micrometer"
    assert "training" in err
    checkpoint = load_model(output)
    assert checkpoint.step == 4
    assert checkpoint.training["seed"] == 5
    assert list(checkpoint.training["class_weights"]) == [1, 2.5]
    assert checkpoint.training["flips"] is False
    assert checkpoint.config["channels"] == 2
    assert checkpoint.spacing == SPACING


def test_a_large_annotation_is_held_in_blocks_and_trained_on_alike(
    run, case, tmp_path, monkeypatch
):
    files = case / "image.ome.tif", case / "annotation.tif"
    trained = []
    for part in (large.SMALL_PART, 0):
        monkeypatch.setattr(large, "SMALL_PART", part)
        (found,) = read_cases(files, unlabeled=0)
        assert isinstance(found.annotation.labels, np.ndarray if part else SparseLabels)
        assert run("train", *files, "-o", tmp_path / "m.volseg", *QUICK)[0] == 0
        trained.append(load_model(tmp_path / "m.volseg").weights)
    assert all((trained[0][name] == trained[1][name]).all() for name in trained[0])


def test_train_takes_many_images(run, case, tmp_path):
    other = write_case(tmp_path / "other", seed=1)
    pairs = [folder / name for folder in (case, other) for name in ("image.ome.tif", "truth.tif")]
    code, out, _ = run("train", *pairs, "-o", tmp_path / "m.volseg", *QUICK)
    assert code == 0
    assert out.startswith(f"{tmp_path / 'm.volseg'}: unet3d, 4 steps")


def test_train_with_another_value_for_unlabeled(run, case, tmp_path):
    """As in the 3D U-Net paper's own annotations: 0, 1 are classes and 3 is unlabeled."""
    annotation = read_annotation(case / "annotation.tif").labels
    np.save(tmp_path / "a.npy", np.where(annotation == 0, 3, annotation - 1).astype(np.int64))
    files = (case / "image.ome.tif", tmp_path / "a.npy", "-o", tmp_path / "m.volseg")
    assert run("train", *files, *QUICK, "--unlabeled", 3)[0] == 0
    assert [c.id for c in load_model(tmp_path / "m.volseg").classes] == [1, 2]


def test_train_learns_from_proposals_too(run, refused, case, tmp_path):
    files = case / "image.ome.tif", case / "annotation.tif"
    truth, output = case / "truth.tif", tmp_path / "m.volseg"
    scores = {}
    for weight in (0, 1):
        options = ("--proposals", truth, "--proposal-weight", weight)
        assert run("train", *files, "-o", output, *QUICK, *options)[0] == 0
        scores[weight] = load_model(output)
    assert scores[1].training["proposal_weight"] == 1
    assert scores[0].belief != scores[1].belief
    message = refused("train", *files, *files, "-o", output, *QUICK, "--proposals", truth)
    assert "proposals go with one image" in message


def test_a_value_is_the_same_class_in_every_annotation(tmp_path):
    """Also where 0 is a class that one of them has no paint of."""
    values = {"one": (0, 1, 2, 255), "other": (1, 2, 255, 255)}
    files = []
    for name, labels in values.items():
        np.save(tmp_path / f"{name}_image.npy", np.zeros((2, 2, 2), np.uint8))
        np.save(tmp_path / f"{name}.npy", np.array([labels, labels], np.uint8).reshape(2, 2, 2))
        files += [tmp_path / f"{name}_image.npy", tmp_path / f"{name}.npy"]
    found = [c.annotation.labels[0].ravel().tolist() for c in read_cases(files, unlabeled=255)]
    assert found == [[1, 2, 3, 0], [2, 3, 0, 0]]


def test_resume_goes_on_with_the_model_s_own_options(run, case, model, tmp_path):
    files = (case / "image.ome.tif", case / "annotation.tif", "-o", tmp_path / "m.volseg")
    code, out, _ = run("train", *files, "--resume", model, "--steps", 2, "--json")
    assert code == 0
    assert json.loads(out)["steps"] == 2
    again = load_model(tmp_path / "m.volseg")
    assert again.training["steps"] == 2
    assert again.config == load_model(model).config
    assert again.training["device"] == "cpu"


def test_predict_writes_labels_with_the_geometry_of_the_image(run, case, model, tmp_path):
    output = tmp_path / "found.nii.gz"
    code, out, _ = run("predict", model, case / "image.ome.tif", "-o", output, "--device", "cpu")
    assert (code, out) == (0, f"{output}\n")
    found = read_volume(output)
    assert found.shape == SHAPE
    np.testing.assert_allclose(found.spacing, SPACING)
    assert found.unit == "micrometer"
    assert set(np.unique(read_annotation(output).labels)) <= {1, 2}


def test_predict_writes_probabilities_and_uncertainty(run, case, model, tmp_path):
    code, out, _ = run(
        *("predict", model, case / "image.ome.tif", "-o", tmp_path / "found.tif"),
        *("--probabilities", tmp_path / "p.ome.tif", "--uncertainty", tmp_path / "u.npy", "--json"),
    )
    assert code == 0
    (document,) = json.loads(out)
    probabilities = np.asarray(read_volume(tmp_path / "p.ome.tif").image)
    labels = read_annotation(tmp_path / "found.tif").labels
    assert probabilities.shape == (2, *SHAPE)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(0) + 1, labels)
    uncertainty = np.asarray(read_volume(tmp_path / "u.npy").image[0])
    expected = -(probabilities * np.log2(probabilities)).sum(0)
    np.testing.assert_allclose(uncertainty, expected, atol=1e-4)
    assert document["voxels"] == {"1": int((labels == 1).sum()), "2": int((labels == 2).sum())}


def test_predict_writes_many_images_into_a_folder(run, case, model, tmp_path):
    volume = read_volume(case / "image.ome.tif")
    write_volume(tmp_path / "b.nii.gz", volume)
    images = (case / "image.ome.tif", tmp_path / "b.nii.gz")
    code, out, _ = run("predict", model, *images, "-o", tmp_path / "out")
    written = [tmp_path / "out" / name for name in ("image_labels.ome.tif", "b_labels.nii.gz")]
    assert code == 0
    assert out.split() == [str(path) for path in written]
    first, second = (read_annotation(path).labels for path in written)
    np.testing.assert_array_equal(first, second)


def test_evaluate_measures_in_physical_units(run, tmp_path):
    truth, prediction = np.ones((2, 9, 12, 12), dtype=np.uint8)
    truth[2], prediction[5] = 2, 2
    volume = Volume(truth[np.newaxis], (2.5, 1.0, 1.0), "micrometer")
    write_labels(tmp_path / "truth.tif", truth, volume)
    write_labels(tmp_path / "found.ome.tif", prediction, volume)
    code, out, _ = run("evaluate", tmp_path / "found.ome.tif", tmp_path / "truth.tif", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["unit"] == "micrometer"
    assert document["foreground"]["asd"] == pytest.approx(7.5)
    assert document["foreground"]["iou"] == 0
    _, table, _ = run("evaluate", tmp_path / "found.ome.tif", tmp_path / "truth.tif")
    assert "ASD (micrometer)" in table
    assert "7.500" in table


def test_evaluate_only_where_nothing_was_annotated(run, case):
    truth, annotation = case / "truth.tif", case / "annotation.tif"
    code, out, _ = run("evaluate", truth, truth, "--annotation", annotation, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["voxels"] == int((read_annotation(annotation).labels == 0).sum())
    assert document["foreground"]["iou"] == 1


def test_evaluate_a_truth_whose_background_is_zero(run, refused, case, tmp_path):
    np.save(tmp_path / "truth.npy", ball().astype(np.int64) - 1)
    files = (case / "truth.tif", tmp_path / "truth.npy")
    assert "--unlabeled none" in refused("evaluate", *files)
    code, out, _ = run("evaluate", *files, "--unlabeled", "none", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["foreground"]["iou"] == 1
    assert document["spacing"] == list(SPACING)
    code, out, _ = run("evaluate", *files, "--unlabeled", "0", "--json")
    assert code == 0
    assert json.loads(out)["voxels"] == int((ball() == 2).sum())


def test_evaluate_points_out_what_it_cannot_know(run, case, tmp_path):
    np.save(tmp_path / "found.npy", ball() - 1)
    _, _, err = run("evaluate", tmp_path / "found.npy", case / "truth.tif")
    assert "background is 1" in err
    other = Volume(ball()[np.newaxis], (1.0, 1.0, 1.0), "millimeter")
    write_labels(tmp_path / "found.tif", ball(), other)
    _, _, err = run("evaluate", tmp_path / "found.tif", case / "truth.tif")
    assert "millimeter" in err


def test_suggest_lists_slices_to_paint_next(run, case, model):
    files = (model, case / "image.ome.tif", "--annotation", case / "annotation.tif")
    code, out, err = run("suggest", *files, "-n", 3, "--json")
    assert code == 0
    assert "image.ome.tif" in err
    found = json.loads(out)
    assert [list(row) for row in found] == [["axis", "index", "score", "view"]] * 3
    scores = [row["score"] for row in found]
    assert scores == sorted(scores, reverse=True)
    complete = {(0, 4), (1, 10), (2, 12)}
    assert not complete & {(row["axis"], row["index"]) for row in found}
    assert all(0 <= row["index"] < SHAPE[row["axis"]] for row in found)
    _, lines, _ = run("suggest", *files)
    assert len(lines.splitlines()) == 5
    best = found[0]
    assert lines.startswith(f"{best['view']} {best['index']:>2}  score {best['score']:.3f}\n")


def test_suggest_is_the_same_from_python(run, case, model):
    volume = read_volume(case / "image.ome.tif")
    annotation = read_annotation(case / "annotation.tif")
    *_, last = events = list(suggest(load_model(model), volume, annotation, n=2))
    assert [event.done for event in events] == list(range(1, last.total + 1))
    _, out, _ = run(
        *("suggest", model, case / "image.ome.tif", "-n", 2, "--json"),
        *("--annotation", case / "annotation.tif"),
    )
    for one, row in zip(last.slices, json.loads(out), strict=True):
        assert one == Suggestion(row["axis"], row["index"], pytest.approx(row["score"]))
    with pytest.raises(InputError, match="0 slices"):
        next(suggest(load_model(model), volume, n=0))
    other = Annotation(np.ones((3, 4, 5), np.uint8))
    with pytest.raises(InputError, match="shape"):
        next(suggest(load_model(model), volume, other))


def test_suggest_without_an_annotation_and_with_all_painted(run, case, model):
    files = (model, case / "image.ome.tif")
    code, out, _ = run("suggest", *files, "--json")
    assert code == 0
    assert len(json.loads(out)) == 5
    assert run("suggest", *files, "--annotation", case / "truth.tif", "--json")[1] == "[]\n"
    code, out, _ = run("suggest", *files, "--annotation", case / "truth.tif")
    assert (code, out) == (0, "no slice is left to paint\n")


def test_suggest_with_another_value_for_unlabeled(run, case, model, tmp_path):
    annotation = read_annotation(case / "annotation.tif").labels
    np.save(tmp_path / "a.npy", np.where(annotation == 0, 3, annotation - 1).astype(np.int64))
    files = (model, case / "image.ome.tif", "--json", "--annotation")
    _, expected, _ = run("suggest", *files, case / "annotation.tif")
    assert run("suggest", *files, tmp_path / "a.npy", "--unlabeled", 3)[1] == expected


def test_demo_goes_through_all_of_it(run, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_volseg.cli.demo.SHAPE", (16, 40, 40))
    code, out, _ = run("demo", "--headless", "--minutes", 0.01, "-o", tmp_path / "demo", "--json")
    assert code == 0
    document = json.loads(out)
    assert 0 <= document["evaluation"]["foreground"]["iou"] <= 1
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    assert names == {
        "image.ome.tif",
        "annotation.ome.tif",
        "truth.ome.tif",
        "model.volseg",
        "prediction.ome.tif",
        "demo.png",
    }


def test_files_are_opened_in_the_window(run, case, monkeypatch):
    opened = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("napari_volseg.widgets.app.launch", opened.extend)
    files = [case / "image.ome.tif", case / "annotation.tif"]
    assert run(*files)[0] == 0
    assert opened == files


def test_demo_opens_the_window(run, monkeypatch):
    opened = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("napari_volseg.widgets.app.launch_demo", lambda: opened.append("demo"))
    assert run("demo")[0] == 0
    assert opened == ["demo"]


# What it refuses


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("trian",), "no such command"),
        (("train", "--bogus", "1"), "--bogus"),
        (("train", "a.tif", "b.tif"), "--output"),
        (("train", "-o", "m.volseg"), "give pairs"),
        (("train", "a.tif", "-o", "m.volseg"), "give pairs"),
        (("train", "a.tif", "b.tif", "-o", "m.volseg"), "a.tif: no such file"),
        (("train", "a.tif", "b.tif", "-o", "no/m.volseg"), "no such folder"),
        (("train", "a.tif", "b.tif", "-o", "m.volseg", "--minutes", "x"), "--minutes"),
        (("train", "a.tif", "b.tif", "-o", "m.volseg", "--minutes", "-1"), "minutes is -1"),
        (("train", "a.tif", "b.tif", "-o", "m.volseg", "--optimizer", "lion"), "lion"),
        (("train", "a.tif", "b.tif", "-o", "m.volseg", "--options", "[1]"), "JSON object"),
        (("train", "a.tif", "b.tif", "-o", "m.volseg", "--class-weights", "a"), "--class-weights"),
        (("train", "a.tif", "b.tif", "-o", "m.volseg", "--unlabeled", "no"), "none"),
        (("train", "a.tif", "b.tif", "-o", "m.volseg", "--resume", "old"), "old: no such file"),
        (("predict",), "MODEL"),
        (("predict", "m.volseg", "a.tif", "-o", "b.tif"), "m.volseg: no such file"),
        (("suggest", "m.volseg"), "IMAGE"),
        (("suggest", "m.volseg", "a.tif"), "m.volseg: no such file"),
        (("suggest", "m.volseg", "a.tif", "-n", "0"), "-n is 0"),
        (("suggest", "m.volseg", "a.tif", "-n", "x"), "-n"),
        (("evaluate", "a.tif"), "TRUTH"),
        (("evaluate", "a.tif", "b.tif"), "a.tif: no such file"),
        (("demo", "--headless", "--minutes", "0"), "--minutes"),
        (("demo", "--headless", "-o", "no/where"), "no such folder"),
    ],
)
def test_usage_errors_are_one_line(refused, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert words in refused(*arguments)
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_trained_on_are_named(refused, case, tmp_path):
    image, annotation = case / "image.ome.tif", case / "annotation.tif"
    output = tmp_path / "m.volseg"
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\0 not a tiff")
    small = tmp_path / "small.npy"
    np.save(small, np.ones((3, 4, 5), dtype=np.uint8))
    for files, name in (
        ((broken, annotation), broken),
        ((image, broken), broken),
        ((image, small), small),
        ((tmp_path, annotation), tmp_path),
    ):
        assert str(name) in refused("train", *files, "-o", output, *QUICK)
    assert not output.exists()


def test_outputs_never_replace_inputs(refused, case, model, tmp_path):
    image, annotation = case / "image.ome.tif", case / "annotation.tif"
    before = image.read_bytes(), annotation.read_bytes()
    assert "overwritten" in refused("train", image, annotation, "-o", annotation, *QUICK)
    assert "overwritten" in refused("predict", model, image, "-o", image)
    assert (image.read_bytes(), annotation.read_bytes()) == before


def test_outputs_are_checked_before_any_work(refused, case, model, tmp_path):
    image = case / "image.ome.tif"
    (tmp_path / "file").write_text("")
    other = write_case(tmp_path / "other") / "image.ome.tif"
    assert "no such folder" in refused("predict", model, image, "-o", tmp_path / "file" / "a.tif")
    assert "end the name" in refused("predict", model, image, "-o", tmp_path / "a.jpg")
    assert "end the name" in refused("predict", model, image, "-o", tmp_path / "folder")
    assert "need a folder" in refused("predict", model, image, other, "-o", tmp_path / "a.tif")
    assert "twice" in refused("predict", model, image, other, "-o", tmp_path / "out")
    both = ("-o", tmp_path / "a.tif", "--uncertainty", tmp_path / "a.tif")
    assert "twice" in refused("predict", model, image, *both)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "other"}


def test_predict_checks_every_image_before_the_first(refused, case, model, tmp_path):
    colorful = write_case(tmp_path / "case", channels=2) / "image.ome.tif"
    error = refused("predict", model, case / "image.ome.tif", colorful, "-o", tmp_path / "out")
    assert str(colorful) in error
    assert "channels" in error
    assert not (tmp_path / "out").exists()


def test_suggest_names_the_file_that_does_not_fit(refused, case, model, tmp_path):
    image, small = case / "image.ome.tif", tmp_path / "small.npy"
    np.save(small, np.ones((3, 4, 5), dtype=np.uint8))
    colorful = write_case(tmp_path / "case", channels=2) / "image.ome.tif"
    missing = tmp_path / "missing.tif"
    for arguments, name, words in (
        ((image, image), image, "not a napari-volseg model"),
        ((model, missing), missing, "no such file"),
        ((model, colorful), colorful, "channels"),
        ((model, image, "--annotation", missing), missing, "no such file"),
        ((model, image, "--annotation", small), small, "shape"),
    ):
        error = refused("suggest", *arguments)
        assert str(name) in error
        assert words in error


def test_a_file_that_is_no_model(refused, case, tmp_path):
    image = case / "image.ome.tif"
    assert "not a napari-volseg model" in refused("predict", image, image, "-o", tmp_path / "a.tif")


def test_files_of_different_volumes(refused, case, tmp_path):
    np.save(tmp_path / "found.npy", np.ones((3, 4, 5), dtype=np.uint8))
    error = refused("evaluate", tmp_path / "found.npy", case / "truth.tif")
    assert str(tmp_path / "found.npy") in error
    assert "shape" in error


def test_a_full_disk_is_said_in_one_line(refused, case, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("napari_volseg.cli.evaluate.compare", full)
    assert "No space left" in refused("evaluate", case / "annotation.tif", case / "annotation.tif")


def test_no_window_without_a_display(refused, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert "no display" in refused()
    assert "no display" in refused("demo")


# Ctrl-C


def press_ctrl_c(monkeypatch, at_step, times=1):
    """Let Ctrl-C be pressed when a training has done so many steps."""
    from napari_volseg.cli import train as module

    real = module.train

    def train(cases, config, *, resume=None):
        run = real(cases, config, resume=resume)
        event = next(run)
        left = times
        while True:
            while left and event.step == at_step:
                left -= 1
                os.kill(os.getpid(), signal.SIGINT)
            try:
                event = run.send((yield event))
            except StopIteration:
                return

    monkeypatch.setattr(module, "train", train)


def test_ctrl_c_stops_a_training_and_saves_it(run, case, tmp_path, monkeypatch):
    press_ctrl_c(monkeypatch, at_step=2)
    before = signal.getsignal(signal.SIGINT)
    output = tmp_path / "m.volseg"
    files = (case / "image.ome.tif", case / "annotation.tif", "-o", output)
    code, out, err = run("train", *files, *QUICK[2:], "--steps", 1000, "--json")
    document = json.loads(out)
    assert code == 130
    assert document["interrupted"] is True
    assert document["steps"] == load_model(output).step == 2
    assert "stopping after this step" in err
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("at_step", "times"), [(0, 1), (2, 2)])
def test_ctrl_c_before_the_first_step_or_twice_gives_the_training_up(
    run, case, tmp_path, monkeypatch, at_step, times
):
    press_ctrl_c(monkeypatch, at_step, times)
    before = signal.getsignal(signal.SIGINT)
    files = (case / "image.ome.tif", case / "annotation.tif", "-o", tmp_path / "m.volseg")
    code, out, err = run("train", *files, *QUICK)
    assert (code, out) == (130, "")
    assert "not written" in err
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGINT) is before
