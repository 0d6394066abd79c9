"""Prediction into chunks on disk: equal to that in memory, killed and gone on with, shared."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
import torch
import zarr
from distributed import Client

from napari_volseg.cli import main
from napari_volseg.cli.predict import labels_of
from napari_volseg.data.annotation import default_classes
from napari_volseg.data.files import read_annotation, read_volume, write_labels, write_volume
from napari_volseg.data.intensity import ChannelIntensity
from napari_volseg.data.unfinished import begin, finish, reopen
from napari_volseg.data.volume import Volume
from napari_volseg.inference.distributed import Cluster, predict_on_cluster, share_on_cluster
from napari_volseg.inference.predict import predict_volume, prepare
from napari_volseg.inference.streamed import chunk_shape, identify, write_missing
from napari_volseg.models.belief import Belief
from napari_volseg.models.checkpoint import Checkpoint, load_model, save_model
from napari_volseg.models.unet3d import build
from napari_volseg.models.unet3d_config import UNet3DConfig
from napari_volseg.sparse.config import TrainingConfig
from tests.inference.dask_cluster import dask_cluster

SHAPE = (13, 26, 30)
SPACING = (2.0, 0.5, 0.5)
CONFIG = UNet3DConfig(
    channels=2, pooling=((1, 2, 2),), kernels=((1, 3, 3), (3, 3, 3)), padding="same",
    test_statistics="running", tile=(4, 12, 12),
)  # fmt: skip


@pytest.fixture
def image(tmp_path):
    values = np.random.default_rng(0).normal(100, 20, (1, *SHAPE)).astype(np.float32)
    write_volume(tmp_path / "image.ome.zarr", Volume(values, SPACING, "micrometer"))
    return tmp_path / "image.ome.zarr"


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    module = build(CONFIG, 1, 2)
    torch.nn.init.normal_(module.classify.weight)
    checkpoint = Checkpoint(
        model="unet3d", config=asdict(CONFIG), training=TrainingConfig().to_json(), channels=1,
        classes=default_classes((1, 2)), spacing=SPACING, unit="micrometer",
        intensity=(ChannelIntensity(0.0, 1.0, 0.0, 1.0),), step=1, seconds=1, score=None,
        iou=(None, None), belief=Belief(), weights=module.state_dict(),
    )  # fmt: skip
    save_model(checkpoint, tmp_path / "model.volseg")
    return tmp_path / "model.volseg"


def predict(*arguments) -> int:
    return main(["predict", *map(str, arguments), "--device", "cpu"])


def levels_of(group) -> list[str]:
    """Name the arrays of an OME-Zarr, finest first."""
    return [level["path"] for level in group.attrs["ome"]["multiscales"][0]["datasets"]]


def in_memory(model, image):
    return predict_volume(load_model(model), read_volume(image), device="cpu")


def begun(model, image, output, flips=False):
    """Begin a prediction as the command does."""
    predictor = prepare(load_model(model), read_volume(image), "cpu", flips=flips)
    labels = begin(
        output, predictor.volume, np.uint8, chunk_shape(predictor), identify(predictor),
        classes=predictor.checkpoint.classes,
    )  # fmt: skip
    return predictor, labels


def test_what_is_streamed_is_what_is_predicted_in_memory(model, image, tmp_path):
    output = tmp_path / "out.ome.zarr"
    others = [tmp_path / "p.ome.zarr", tmp_path / "u.ome.zarr"]
    wanted = ("-o", output, "--probabilities", others[0], "--uncertainty", others[1])
    assert predict(model, image, *wanted) == 0
    found = read_annotation(output)
    np.testing.assert_array_equal(found.labels, in_memory(model, image))
    assert [c.name for c in found.classes] == ["background", "class 2"]
    probabilities, uncertainty = (np.asarray(read_volume(path).image) for path in others)
    np.testing.assert_array_equal(probabilities.argmax(0) + 1, found.labels)
    expected = -(probabilities * np.log2(probabilities)).sum(0)
    np.testing.assert_allclose(uncertainty[0], expected, atol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("image.ome.zarr", "model.volseg", "out.ome.zarr", "p.ome.zarr", "u.ome.zarr")
    ]


def test_a_killed_prediction_goes_on_where_it_was(model, image, tmp_path, capsys):
    output = tmp_path / "out.ome.zarr"
    predictor, labels = begun(model, image, output)
    total = len(predictor.tiles)
    written = write_missing(predictor, [(labels, labels_of)], predictor.tiles)
    for _ in range(1 + 5):
        next(written)
    written.close()
    kept = predictor.tiles[0].write
    labels.array[kept] = 2  # as no network says: it shows what is not done again
    assert not output.exists()
    assert predict(model, image, "-o", output) == 0
    assert f"5 of {total} regions are done" in capsys.readouterr().err
    expected = in_memory(model, image)
    expected[kept] = 2
    np.testing.assert_array_equal(read_annotation(output).labels, expected)


@pytest.mark.parametrize("other", ["network", "image"])
def test_what_another_prediction_left_is_not_gone_on_with(model, image, tmp_path, other, capsys):
    output = tmp_path / "out.ome.zarr"
    _, labels = begun(model, image, output)
    labels.array[...] = 2
    if other == "network":
        checkpoint = load_model(model)
        checkpoint.weights["classify.weight"].mul_(-1)
        save_model(checkpoint, model)
    else:
        volume = read_volume(image)
        write_volume(image, Volume(np.asarray(volume.image) * 2 + 1, SPACING, "micrometer"))
    assert predict(model, image, "-o", output) == 0
    assert "going on" not in capsys.readouterr().err
    np.testing.assert_array_equal(read_annotation(output).labels, in_memory(model, image))


def test_a_region_of_many_chunks_is_there_when_all_of_them_are(model, image, tmp_path):
    volume = read_volume(image)
    labels = begin(tmp_path / "a.zarr", volume, np.uint8, (4, 12, 12), "x")
    whole = tuple(slice(0, n) for n in SHAPE)
    labels.array[...] = 1
    assert labels.has(whole)
    shutil.rmtree(tmp_path / ".a.zarr.unfinished" / "0" / "c" / "3")
    assert not reopen(tmp_path / "a.zarr").has(whole)
    assert labels.has((slice(8, 12), slice(0, 26), slice(12, 30)))


def test_labels_are_stored_inside_their_image(model, image):
    output = image / "labels" / "cells"
    for _ in range(2):  # and written anew
        assert predict(model, image, "-o", output) == 0
    expected = in_memory(model, image)
    np.testing.assert_array_equal(read_annotation(output).labels, expected)
    assert zarr.open_group(image / "labels", mode="r").attrs["ome"]["labels"] == ["cells"]
    attributes = zarr.open_group(output, mode="r").attrs["ome"]
    assert attributes["image-label"]["source"] == {"image": "../../"}
    write_labels(image / "labels" / "more", expected, read_volume(image))
    assert zarr.open_group(image / "labels", mode="r").attrs["ome"]["labels"] == ["cells", "more"]
    np.testing.assert_array_equal(np.asarray(read_volume(image).image).shape, (1, *SHAPE))


def test_labels_of_another_image_are_not_stored_inside(model, image, tmp_path, capsys):
    other = tmp_path / "other.ome.zarr"
    write_volume(other, Volume(np.zeros((1, 4, 5, 6), np.uint8)))
    assert predict(model, image, "-o", other / "labels" / "cells") == 2
    assert "belong to another image" in capsys.readouterr().err
    assert not (other / "labels").exists()


def test_labels_have_coarser_levels(tmp_path):
    labels = np.random.default_rng(0).integers(1, 4, (20, 300, 520)).astype(np.uint8)
    volume = Volume(np.zeros((1, *labels.shape), np.uint8), (2.0, 0.5, 0.5), "micrometer")
    write_labels(tmp_path / "a.ome.zarr", labels, volume)
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    levels = group.attrs["ome"]["multiscales"][0]["datasets"]
    scales = [level["coordinateTransformations"][0]["scale"] for level in levels]
    # z is left alone until the others' voxels are as long.
    assert scales == [[2.0, 0.5, 0.5], [2.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    for level, step in zip(levels, (1, 2, 4), strict=True):
        np.testing.assert_array_equal(group[level["path"]][...], labels[:, ::step, ::step])


def test_workers_of_a_cluster_write_the_same_also_when_one_is_lost(model, image, tmp_path):
    output, mirrored = tmp_path / "out.ome.zarr", tmp_path / "flips.ome.zarr"
    predictor, labels = begun(model, image, output)
    averaging, averaged = begun(model, image, mirrored, flips=True)
    with dask_cluster(tmp_path, workers=2) as (address, workers):
        regions = len(predictor.tiles)
        written = predict_on_cluster(
            Cluster(address, model, "cpu"), image, [(output, labels_of)], regions,
            predictor.intensity,
        )  # fmt: skip
        first = next(written)
        assert first.regions < regions
        workers[0].kill()
        found = [first, *written]
        cluster = Cluster(address, model, "cpu", flips=True)
        finish(labels, share_on_cluster(cluster))
        # The one that is left averages over mirrored images, too, and reads by Dask what is in
        # foreign byte order.
        foreign, places = tmp_path / "image.npy", [(mirrored, labels_of)]
        np.save(foreign, np.asarray(read_volume(image).image[0]).astype(">f4"))
        list(predict_on_cluster(cluster, foreign, places, regions, averaging.intensity))
        with Client(address) as client:
            tasks = client.run_on_scheduler(lambda dask_scheduler: [*dask_scheduler.task_prefixes])
        assert sorted(tasks) == ["fill_level", "predict_batch"], "a worker reads for itself"
    finish(averaged)
    assert sum(one.regions for one in found) == regions
    expected = in_memory(model, image)
    ids, counts = np.unique(expected, return_counts=True)
    assert sum((one.voxels for one in found), Counter()) == dict(zip(ids, counts, strict=True))
    np.testing.assert_array_equal(read_annotation(output).labels, expected)
    group = zarr.open_group(output, mode="r")
    levels = levels_of(group)
    assert len(levels) > 2
    fine = expected
    for level in levels[1:]:
        steps = [-(-n // m) for n, m in zip(fine.shape, group[level].shape, strict=True)]
        fine = fine[tuple(slice(None, None, step) for step in steps)]
        np.testing.assert_array_equal(group[level][...], fine)
    expected = predict_volume(load_model(model), read_volume(image), device="cpu", flips=True)
    np.testing.assert_array_equal(read_annotation(mirrored).labels, expected)


def test_what_is_known_of_the_gray_values_is_not_measured_again(model, image, monkeypatch):
    checkpoint, volume = load_model(model), read_volume(image)
    known = prepare(checkpoint, volume, "cpu").intensity
    monkeypatch.setattr("napari_volseg.inference.predict.measure_intensity", None)
    assert prepare(checkpoint, volume, "cpu", intensity=known).intensity == known


def test_flip_averaging_is_streamed(model, image, tmp_path):
    checkpoint, volume = load_model(model), read_volume(image)
    expected = predict_volume(checkpoint, volume, device="cpu", flips=True)
    assert (expected != in_memory(model, image)).any()
    output = tmp_path / "out.ome.zarr"
    assert predict(model, image, "-o", output, "--flips") == 0
    np.testing.assert_array_equal(read_annotation(output).labels, expected)
    # A prediction without it does not go on where one with it was stopped.
    assert identify(prepare(checkpoint, volume, "cpu", flips=True)) != identify(
        prepare(checkpoint, volume, "cpu")
    )


def test_no_cluster_and_no_zarr_are_told(model, image, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("napari_volseg.inference.distributed.CONNECT_SECONDS", 0.5)
    output, nowhere = tmp_path / "out.ome.zarr", "tcp://127.0.0.1:9"
    assert predict(model, image, "-o", output, "--dask", nowhere) == 2
    assert f"no Dask scheduler answers at {nowhere}" in capsys.readouterr().err
    assert predict(model, image, "-o", tmp_path / "out.tif", "--dask", nowhere) == 2
    assert "only an OME-Zarr" in capsys.readouterr().err


def test_the_voxels_of_each_class_are_counted_from_disk(model, image, tmp_path, capsys):
    assert predict(model, image, "-o", tmp_path / "out.ome.zarr", "--json") == 0
    (document,) = json.loads(capsys.readouterr().out)
    ids, counts = np.unique(in_memory(model, image), return_counts=True)
    expected = {"1": 0, "2": 0} | {str(i): int(n) for i, n in zip(ids, counts, strict=True)}
    assert document["voxels"] == expected
    assert sum(document["voxels"].values()) == np.prod(SHAPE)


def test_an_interrupted_finish_leaves_what_was_there_and_is_done_again(model, image, tmp_path):
    output = tmp_path / "out.ome.zarr"
    assert predict(model, image, "-o", output) == 0
    before = read_annotation(output).labels
    _, labels = begun(model, image, output)
    labels.array[...] = 2  # as no network says: it shows that nothing is predicted again

    def interrupted(work, pieces):
        work(0, 1)
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        finish(labels, interrupted)
    np.testing.assert_array_equal(read_annotation(output).labels, before)
    assert predict(model, image, "-o", output) == 0
    assert (read_annotation(output).labels == 2).all()
    group = zarr.open_group(output, mode="r")
    levels = levels_of(group)
    assert len(levels) == len(set(levels)) > 2
    assert all((group[level][...] == 2).all() for level in levels)
