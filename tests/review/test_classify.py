from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_volseg.data.annotation import LabelClass
from napari_volseg.data.digits import digits
from napari_volseg.data.errors import InputError
from napari_volseg.data.volume import Volume
from napari_volseg.models.checkpoint import load_model, save_model
from napari_volseg.review.classify import (
    ClassifiedObject,
    class_labels,
    classify_objects,
    crop_probabilities,
    train_classifier,
    train_on_objects,
)
from napari_volseg.review.objects import find_objects
from napari_volseg.sparse.crops import Examples
from napari_volseg.sparse.object_config import ObjectConfig
from napari_volseg.training.events import Command

KINDS = (0, 1, 7)
CLASSES = tuple(LabelClass(k + 2, str(k), "#808080") for k in KINDS)
NARROW = {"widths": (4, 8, 16, 16), "hidden": 32, "learning_rate": 3e-3, "batch_size": 12}
# The mirror image of a digit is none, and one that stands on its head is another.
QUICK = ObjectConfig(options=NARROW, device="cpu", steps=3, turns=False, flips=False)


def examples(count, seed=0):
    images, values = digits(count, seed=seed, kinds=KINDS)
    target = torch.tensor([KINDS.index(v) for v in values.tolist()])
    return Examples(torch.from_numpy(images)[:, None], target, CLASSES, gray_channels=1)


def scene(count=12, spacing=(2.0, 2.0, 2.0)):
    """A volume with 0, 1, 0, 1, ... in a row, its objects, and the class id of each."""
    images, values = digits(count, seed=3, kinds=(0, 1), rotation_degrees=10)
    image = np.concatenate(list(images), axis=2)[None] * 100
    mask = 1 + (image[0] > 30).astype(np.uint8)
    objects = find_objects(mask, smallest=20)
    assert len(objects.found) == count
    truth = {o.id: int(values[int(o.center[2] // 16)]) + 2 for o in objects.found}
    return Volume(image.astype(np.float32), spacing, "micrometer"), objects, truth


def last_of(run):
    *_, last = run
    return last


def test_a_few_digits_and_a_few_steps_teach_the_others():
    last = last_of(train_classifier(examples(30), replace(QUICK, steps=30)))
    others = examples(30, seed=1)
    module, _ = last.checkpoint.module()
    found = crop_probabilities(module, others.crops)
    torch.testing.assert_close(found.sum(1), torch.ones(30))
    assert (found.argmax(1) == others.target).float().mean() >= 0.85


def test_objects_of_a_volume_are_classified_from_examples():
    volume, objects, truth = scene()
    given = {o.id: truth[o.id] for o in objects.found if o.center[2] < 8 * 16}
    config = replace(QUICK, steps=30)
    events = list(train_on_objects(volume, objects, given, CLASSES, config))
    losses = [e.loss for e in events if e.loss is not None]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert [e.step for e in events] == list(range(31))
    assert events[-1].fraction == 1
    checkpoint = events[-1].checkpoint
    assert (checkpoint.spacing, checkpoint.unit) == ((2.0, 2.0, 2.0), "micrometer")
    rows = [row for some in classify_objects(checkpoint, volume, objects, given) for row in some]
    assert [row.object for row in rows] == list(truth)
    assert sum(row.class_id == truth[row.object] for row in rows if not row.given) >= 3
    assert [row.object for row in rows if row.given] == list(given)
    assert all(0 <= row.probability <= 1 for row in rows)
    for row, one in zip(rows, objects.found, strict=True):
        assert row.center == pytest.approx([2 * c for c in one.center])
        assert row.voxels == one.voxels
    labels = class_labels(objects, rows)
    assert labels.dtype == np.uint8
    assert (labels[objects.labels == 0] == 1).all()
    assert all((labels[objects.labels == row.object] == row.class_id).all() for row in rows)


def test_an_example_keeps_its_class_whatever_the_network_says():
    volume, objects, _ = scene(count=3)
    config = replace(QUICK, steps=1)
    checkpoint = last_of(
        train_on_objects(volume, objects, {1: 2, 2: 3, 3: 9}, CLASSES, config)
    ).checkpoint
    for given in ({1: 2}, {1: 3}, {1: 9}):
        (rows,) = classify_objects(checkpoint, volume, objects, given)
        assert (rows[0].class_id, rows[0].given) == (given[1], True)
        assert not rows[1].given


def test_the_same_seed_gives_the_same_network_and_another_one_another():
    one, two, other = (
        last_of(train_classifier(examples(6), replace(QUICK, seed=s))).checkpoint.weights
        for s in (1, 1, 2)
    )
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not all(torch.equal(one[k], other[k]) for k in one)


def test_a_stop_leaves_a_network_that_classifies():
    run = train_classifier(examples(6), replace(QUICK, steps=1000))
    assert next(run).step == 0
    assert next(run).step == 1
    last = run.send(Command.STOP)
    assert (last.step, last.note) == (1, "stopped")
    assert last.checkpoint.step == 1
    assert next(run, None) is None


def test_a_time_budget_ends():
    last = last_of(train_classifier(examples(6), replace(QUICK, steps=0, minutes=1e-9)))
    assert last.step == 1
    assert last.checkpoint is not None


def test_a_saved_network_classifies_alike(tmp_path):
    volume, objects, truth = scene(count=3)
    checkpoint = last_of(train_on_objects(volume, objects, truth, CLASSES, QUICK)).checkpoint
    save_model(checkpoint, tmp_path / "objects.volseg")
    again = load_model(tmp_path / "objects.volseg")
    before, after = (list(classify_objects(c, volume, objects)) for c in (checkpoint, again))
    assert before == after


def test_what_does_not_fit_is_refused():
    volume, objects, truth = scene(count=3)
    checkpoint = last_of(train_on_objects(volume, objects, truth, CLASSES, QUICK)).checkpoint
    two = replace(volume, image=np.concatenate([volume.image] * 2))
    with pytest.raises(InputError, match="crops of 3 channels, but the model was trained on 2"):
        next(classify_objects(checkpoint, two, objects))
    with pytest.raises(InputError, match="labels voxels"):
        next(classify_objects(replace(checkpoint, model="unet3d"), volume, objects))
    short = replace(volume, image=volume.image[:, 1:])
    with pytest.raises(InputError, match="give a mask of this image"):
        next(classify_objects(checkpoint, short, objects))
    with pytest.raises(InputError, match="asks for 8 along each edge"):
        next(train_classifier(examples(3), replace(QUICK, options={"widths": (2, 2, 2)})))
    with pytest.raises(InputError, match="no option width;"):
        next(train_classifier(examples(3), replace(QUICK, options={"width": 2})))


def test_more_classes_than_a_byte_holds():
    _, objects, _ = scene(count=3)
    row = ClassifiedObject(2, 300, 0.5, False, 9, (0.0, 0.0, 0.0))
    labels = class_labels(objects, [row])
    assert labels.dtype == np.uint16
    assert set(np.unique(labels)) == {1, 300}
