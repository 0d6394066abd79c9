"""Predict, review and save; and the offer of what was never saved."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog

from napari_volseg.data.files import read_annotation, read_volume
from napari_volseg.data.journal import recoverable
from napari_volseg.data.tiles import box_size
from napari_volseg.data.volume import Volume
from napari_volseg.inference.predict import PredictedRegion, predict_volume
from napari_volseg.models.checkpoint import load_model
from napari_volseg.models.unet3d import UNet3D
from napari_volseg.widgets import predict as predict_step
from napari_volseg.widgets.dock import VolSegDock
from napari_volseg.widgets.journaling import autosave_words
from napari_volseg.widgets.layers import classes_of, noted, show_slice
from napari_volseg.widgets.review import physical_volume
from napari_volseg.widgets.settings import Memory
from tests.widgets.conftest import close, paint_three_slices
from tests.widgets.hands import add_volume, find, live, press, wait_until


@pytest.fixture
def trained(painted, model):
    """The dock at the third step, with a model."""
    painted.session.set_model(model)
    press(painted, "step Predict")
    return painted


@pytest.fixture
def predicted(trained):
    press(trained, "predict")
    wait_until(lambda: not trained.predict.job.running, "it is predicted")
    return trained


@pytest.fixture
def regions(trained, model, monkeypatch):
    """Predict in small tiles, and slowly; the regions that come, in their order."""
    config = model.checkpoint.config | {"tile": (8, 24, 24)}
    checkpoint = replace(model.checkpoint, config=config)
    trained.session.set_model(replace(model, checkpoint=checkpoint))
    regions = []
    real = predict_step.predict_on

    def predict_on(*arguments):
        work, heard = real(*arguments), None
        while True:
            try:
                piece = work.send(heard)
            except StopIteration:
                return
            if isinstance(piece, PredictedRegion):
                regions.append(piece.region)
            heard = yield piece
            time.sleep(0.04)

    monkeypatch.setattr(predict_step, "predict_on", predict_on)
    return regions


@pytest.fixture
def dialog(monkeypatch, tmp_path):
    """Answer file dialogs; what they were asked."""
    asked = {}

    def answer(parent, title, start, filters, chosen=""):
        asked.update(title=title, start=start)
        return asked.get("answer", ""), asked.get("filter", chosen)

    monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", answer)
    return asked


# Predict ----------------------------------------------------------------------


def test_flip_averaging_is_a_choice(trained, model, phantom):
    config = {**model.checkpoint.config, "tile": (24, 48, 56)}
    model = replace(model, checkpoint=replace(model.checkpoint, config=config))
    trained.session.set_model(model)
    find(trained, "flip averaging").click()
    press(trained, "step Predict")
    press(trained, "predict")
    wait_until(lambda: not trained.predict.job.running, "it is predicted")
    expected = predict_volume(model.checkpoint, phantom[0], flips=True)
    np.testing.assert_array_equal(trained.session.prediction.data, expected)
    assert Memory().get("flips", False) is True


def test_the_overlay_becomes_the_prediction(predicted, model, phantom):
    overlay, image = predicted.session.prediction, predicted.session.image
    np.testing.assert_array_equal(overlay.data, predict_volume(model.checkpoint, phantom[0]))
    assert "100%" in find(predicted, "step Predict").text()
    assert overlay.data_to_world((1, 2, 3)) == pytest.approx(image.data_to_world((1, 2, 3)))


def test_without_a_model_there_is_no_prediction(painted):
    press(painted, "step Predict")
    assert not find(painted, "predict").isEnabled()
    reason = find(painted, "why prediction is not possible")
    assert reason.text() == "Train first, or load a model." and reason.isVisible()


def test_a_model_for_other_images_is_refused_in_its_place(viewer, trained):
    viewer.add_image(np.zeros((5, 6, 7), np.uint8), name="gray")
    trained.session.choose_image(viewer.layers["gray"])
    assert not find(trained, "predict").isEnabled()
    reason = find(trained, "why prediction is not possible").text()
    assert reason == "The model reads 2 channels, the image has 1; choose one like it."


def test_a_prediction_has_the_colors_of_the_brush(trained):
    trained.session.edit_class(2, name="wall", color="#102030")
    press(trained, "predict")
    assert classes_of(trained.session.prediction)[1].color == "#102030"
    assert classes_of(trained.session.prediction)[1].name == "wall"
    wait_until(lambda: not trained.predict.job.running, "it is predicted")


def test_the_slice_on_view_comes_first(viewer, trained, regions):
    show_slice(viewer, trained.session.annotation, 1, 40)
    press(trained, "predict")
    wait_until(lambda: not trained.predict.job.running, "it is predicted")
    meets = [region[1].start <= 40 < region[1].stop for region in regions]
    assert meets == sorted(meets, reverse=True) and any(meets) and not all(meets)


def test_regions_are_drawn_while_more_are_to_come_but_only_those_on_view(viewer, trained, regions):
    show_slice(viewer, trained.session.annotation, 0, 3)
    press(trained, "predict")
    overlay = trained.session.prediction
    drawn = []
    overlay.events.set_data.connect(lambda event: drawn.append(len(regions)))
    wait_until(lambda: not trained.predict.job.running, "it is predicted")
    on_view = sum(region[0].start <= 3 < region[0].stop for region in regions)
    assert drawn and drawn[0] < on_view
    # One that was due when the last region on view came, and one at the end.
    assert sum(at > on_view for at in drawn) <= 2


def test_a_prediction_can_be_cancelled(trained, regions, phantom):
    press(trained, "predict")
    wait_until(lambda: len(regions) > 3, "regions come")
    press(trained, "cancel prediction")
    wait_until(lambda: not trained.predict.job.running, "it is cancelled")
    overlay = trained.session.prediction.data
    assert (overlay == 0).any() and (overlay != 0).any()
    assert not find(trained, "save the mask").isEnabled()
    assert "a mask can be saved once all is" in find(trained, "prediction state").text()
    press(trained, "predict")
    wait_until(lambda: not trained.predict.job.running, "it is predicted")
    assert trained.session.prediction.data.all()


def test_a_cancelled_prediction_goes_on_with_what_is_left(trained, regions, monkeypatch):
    monkeypatch.setattr("napari_volseg.inference.predict.Predictor.look", lambda *_: ())

    def come_to():
        overlay, summed = trained.session.prediction, trained.session.uncertainty
        assert find(trained, "save the mask").isEnabled()
        return overlay.data.copy(), noted(overlay)["doubt"].copy(), summed

    press(trained, "predict")
    wait_until(lambda: not trained.predict.job.running, "it is predicted")
    labels, doubt, summed = come_to()
    assert len(regions) == 12
    regions.clear()
    assert find(trained, "predict").text().startswith("Predict"), "all of it, once more"
    for least in (3, 7):
        press(trained, "predict")
        wait_until(lambda least=least: len(regions) >= least, "regions come")
        press(trained, "cancel prediction")
        wait_until(lambda: not trained.predict.job.running, "it is cancelled")
        assert find(trained, "predict").text().startswith("Go on")
        shown = np.count_nonzero(trained.session.prediction.data)
        assert shown == sum(map(box_size, regions)), "nothing finished is left out"
    assert trained.session.uncertainty is None
    press(trained, "predict")
    wait_until(lambda: not trained.predict.job.running, "it is predicted")
    assert len(regions) == 12, "each of them once"
    again = come_to()
    np.testing.assert_array_equal(again[0], labels)
    np.testing.assert_array_equal(again[1], doubt)
    for one, other in zip(again[2].entropy, summed.entropy, strict=True):
        np.testing.assert_allclose(one, other)


@pytest.mark.parametrize("other", ["flips", "model"])
def test_what_was_cancelled_begins_anew_where_something_else_is_asked_for(
    trained, regions, model, other
):
    press(trained, "predict")
    wait_until(lambda: trained.predict.fraction > 0.2, "regions are finished")
    press(trained, "cancel prediction")
    wait_until(lambda: not trained.predict.job.running, "it is cancelled")
    assert find(trained, "predict").text().startswith("Go on")
    if other == "flips":
        press(trained, "flip averaging")
    else:
        trained.session.set_model(model)
    assert find(trained, "predict").text().startswith("Predict")
    press(trained, "predict")
    assert not trained.session.prediction.data.any()


def test_flip_averaging_can_be_cancelled_between_its_passes(trained, monkeypatch):
    """Not only once a region is finished, which takes eight of them."""
    monkeypatch.setattr("napari_volseg.inference.predict.Predictor.look", lambda *_: ())
    right, seen = UNet3D.unet, []

    def unet(*arguments):
        seen.append(1)
        while len(seen) == 2 and "Stopping" not in find(trained, "prediction state").text():
            time.sleep(0.01)
        return right(*arguments)

    monkeypatch.setattr(UNet3D, "unet", unet)
    find(trained, "flip averaging").click()
    press(trained, "predict")
    wait_until(lambda: len(seen) == 2, "it is in its second pass")
    press(trained, "cancel prediction")
    wait_until(lambda: not trained.predict.job.running, "it is cancelled")
    assert len(seen) == 2


@pytest.mark.parametrize("gone", ["prediction", "image"])
def test_deleting_a_layer_in_mid_prediction_ends_it(viewer, trained, regions, gone, no_errors):
    press(trained, "predict")
    wait_until(lambda: len(regions) > 3, "regions come")
    if gone == "image":
        for image in list(viewer.layers)[:2]:
            viewer.layers.remove(image)
    else:
        viewer.layers.remove(trained.session.prediction)
    wait_until(lambda: not trained.predict.job.running, "it ends")
    seen = len(regions)
    live(0.1)
    assert len(regions) == seen < 18
    assert trained.session.prediction is None and trained.session.busy == ""


def test_closing_in_mid_prediction(trained, regions, no_errors):
    press(trained, "predict")
    wait_until(lambda: len(regions) > 3, "regions come")
    seen = len(regions)
    trained.shutdown()
    live(0.3)
    assert len(regions) <= seen + 1, "only the region that was under way is finished"


def test_the_prediction_can_be_hidden_and_the_box_follows_the_layer(predicted):
    box, overlay = find(predicted, "show prediction"), predicted.session.prediction
    box.click()
    assert not overlay.visible
    overlay.visible = True
    assert box.isChecked()


# Save -------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".ome.tif", ".nii.gz", ".zarr", ".npy"])
def test_a_saved_mask_is_the_overlay_with_the_geometry_of_the_image(
    predicted, dialog, tmp_path, phantom, suffix
):
    dialog["answer"] = str(tmp_path / f"mask{suffix}")
    press(predicted, "save the mask")
    wait_until((tmp_path / f"mask{suffix}").exists, "the mask is written")
    labels = read_annotation(tmp_path / f"mask{suffix}")
    np.testing.assert_array_equal(labels.labels, predicted.session.prediction.data)
    if suffix != ".npy":
        assert read_volume(tmp_path / f"mask{suffix}").spacing == pytest.approx(phantom[0].spacing)


def test_a_name_without_a_suffix_gets_one_and_the_folder_is_remembered(predicted, dialog, tmp_path):
    dialog["answer"], dialog["filter"] = str(tmp_path / "mask"), "NIfTI (*.nii.gz)"
    press(predicted, "save the mask")
    wait_until((tmp_path / "mask.nii.gz").exists, "the mask is written")
    dialog["answer"] = ""
    press(predicted, "save the mask")
    assert dialog["start"] == str(tmp_path / "kidney phantom_labels.nii.gz")


def test_a_mask_that_cannot_be_written_is_reported(predicted, dialog, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("napari_volseg.widgets.jobs.show_warning", shown.append)
    dialog["answer"] = str(tmp_path / "missing folder" / "mask.ome.tif")
    press(predicted, "save the mask")
    wait_until(lambda: bool(shown), "a warning")
    assert "missing folder" in shown[0]


def test_a_model_comes_back_from_its_file(predicted, dialog, tmp_path, model):
    dialog["answer"] = str(tmp_path / "kidney.volseg")
    press(predicted, "save the model")
    wait_until((tmp_path / "kidney.volseg").exists, "the model is written")
    assert load_model(tmp_path / "kidney.volseg").classes == model.checkpoint.classes
    predicted.session.set_model(None)
    press(predicted, "load a model")
    wait_until(lambda: predicted.session.model is not None, "the model is read")
    text = find(predicted, "model to predict with").text()
    assert text.replace("\N{NO-BREAK SPACE}", " ") == "kidney · held-out IoU 0.80 · trained 2 min"


def test_a_saved_annotation_is_not_offered_again(painted, dialog, tmp_path):
    dialog["answer"] = str(tmp_path / "painted.ome.tif")
    press(painted, "save the annotation")
    wait_until((tmp_path / "painted.ome.tif").exists, "the annotation is written")
    live(0.1)
    labels = read_annotation(tmp_path / "painted.ome.tif").labels
    np.testing.assert_array_equal(labels, painted.session.annotation.data)
    close(painted)
    assert recoverable(tmp_path / "journal") == []


# Review -----------------------------------------------------------------------


def test_the_review_counts_the_classes_of_the_prediction(predicted, phantom):
    press(predicted, "step Review")
    table = find(predicted, "classes of the prediction")
    wait_until(table.isVisible, "it is counted")
    names = [table.item(i, 0).text() for i in range(table.rowCount())]
    voxels = [int(table.item(i, 2).text().replace("\N{THIN SPACE}", "")) for i in range(3)]
    overlay = predicted.session.prediction.data
    assert names == ["background", "class 2", "class 3"]
    assert voxels == [np.count_nonzero(overlay == i) for i in (1, 2, 3)]
    assert [table.item(i, 1).text() for i in range(3)] == ["0.90", "0.80", "—"]


@pytest.mark.parametrize(
    ("voxels", "spacing", "unit", "text"),
    [
        (1000, (2.0, 0.5, 0.5), "micrometer", "500 µm³"),
        (3, (0.5, 0.5, 0.5), "millimeter", "0.375 mm³"),
        (12_345_678, (1, 1, 1), "pixel", "12 345 678 px³"),
    ],
)
def test_volumes_are_physical(voxels, spacing, unit, text):
    volume = Volume(np.zeros((1, 2, 2, 2), np.uint8), spacing, unit)
    assert physical_volume(voxels, volume).replace("\N{THIN SPACE}", " ") == text


def test_a_slice_of_the_prediction_becomes_paint(viewer, predicted):
    press(predicted, "step Review")
    wait_until(find(predicted, "copy slice to annotation").isEnabled, "it is counted")
    annotation, prediction = predicted.session.annotation, predicted.session.prediction
    show_slice(viewer, annotation, 0, 5)
    before = annotation.data.copy()
    press(predicted, "copy slice to annotation")
    expected = before.copy()
    expected[5][before[5] == 0] = prediction.data[5][before[5] == 0]
    np.testing.assert_array_equal(annotation.data, expected)


# Autosave ---------------------------------------------------------------------


@pytest.fixture
def crashed(viewer, phantom, tmp_path, qapp):
    """The labels that an earlier session painted and never saved."""
    dock = VolSegDock(viewer, journal=tmp_path / "journal")
    add_volume(viewer, phantom[0])
    paint_three_slices(dock, phantom[1].labels)
    dock.session.edit_class(2, name="tubule")
    labels = dock.session.annotation.data.copy()
    close(dock)
    dock.deleteLater()
    viewer.layers.clear()
    return labels


def test_paint_is_on_disk_before_any_file_is_named(painted):
    state = find(painted, "autosave state")
    wait_until(lambda: state.text().startswith("saved"), "it is saved")
    assert state.isVisible()


def test_what_was_never_saved_is_offered_and_restored(viewer, crashed, dock, phantom, tmp_path):
    wait_until(find_restore(dock), "it is offered")
    assert "kidney phantom" in find(dock, "unsaved annotation").text()
    add_volume(viewer, phantom[0])
    press(dock, "restore annotation")
    wait_until(lambda: dock.session.annotation is not None, "it is restored")
    np.testing.assert_array_equal(dock.session.annotation.data, crashed)
    assert dock.session.classes[1].name == "tubule"
    image, layer = dock.session.image, dock.session.annotation
    assert layer.data_to_world((1, 2, 3)) == pytest.approx(image.data_to_world((1, 2, 3)))
    wait_until(lambda: not find_restore(dock)(), "the offer is gone")
    close(dock)
    assert len(recoverable(tmp_path / "journal")) == 1, "still on offer, once"


def test_what_was_never_saved_can_be_discarded(viewer, crashed, dock, tmp_path):
    wait_until(find_restore(dock), "it is offered")
    press(dock, "discard annotation")
    wait_until(lambda: not find_restore(dock)(), "the offer is gone")
    assert recoverable(tmp_path / "journal") == []


def find_restore(dock):
    def is_offered():
        try:
            return find(dock, "restore annotation").isVisible()
        except LookupError:
            return False

    return is_offered


def test_the_state_of_the_autosave_in_words():
    now = datetime(2020, 1, 1, 12)
    assert autosave_words("saved", now - timedelta(seconds=5), now) == "saved 5 s ago"
    assert autosave_words("saving", None, now) == "saving…"
    assert autosave_words("not saved: disk full", now, now) == "not saved: disk full"
