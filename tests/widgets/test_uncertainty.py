"""How sure the prediction is, and how good: the layer, the strip, the figures in Review."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_volseg.inference.predict import predict
from napari_volseg.models.evidence import Evidence
from napari_volseg.review.suggest import empty_map
from napari_volseg.review.uncertainty import normalized_entropy
from napari_volseg.widgets.layers import noted, show_slice, turn, visible_slice
from napari_volseg.widgets.session import Model
from tests.widgets.hands import find, live, press, wait_until


@pytest.fixture
def trained(painted, model):
    painted.session.set_model(model)
    press(painted, "step Predict")
    return painted


def predict_all(dock):
    press(dock, "predict")
    wait_until(lambda: not dock.predict.job.running, "it is predicted")


def uncertainty_layer(viewer):
    found = [layer for layer in viewer.layers if noted(layer).get("role") == "uncertainty"]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.fixture
def entropy(model, phantom):
    """What the layer should show, 0 to 1."""
    expected = np.zeros(phantom[0].shape, np.float32)
    for piece in predict(model.checkpoint, phantom[0]):
        expected[piece.region] = normalized_entropy(piece.probabilities)
    return expected


# The layer ---------------------------------------------------------------------


def test_the_layer_shows_the_entropy_of_the_prediction(viewer, trained, entropy):
    press(trained, "show uncertainty")
    assert uncertainty_layer(viewer) is None, "nothing is predicted yet"
    assert find(trained, "legend of the uncertainty").isVisible()
    predict_all(trained)
    layer, image = uncertainty_layer(viewer), trained.session.image
    assert layer.data.dtype == np.uint8
    np.testing.assert_allclose(layer.data / 255, entropy, atol=0.01)
    assert layer.data.max() > 100
    assert layer.contrast_limits == [0, 255]
    assert layer.data_to_world((1, 2, 3)) == pytest.approx(image.data_to_world((1, 2, 3)))
    # It is under the paint, which stays what one paints on, and is no image to work on.
    annotation = trained.session.annotation
    assert viewer.layers.index(layer) < viewer.layers.index(annotation)
    assert viewer.layers.selection.active is annotation
    assert layer not in trained.session.images()


def test_the_box_shows_at_once_what_was_predicted_without_it(viewer, trained, entropy):
    predict_all(trained)
    assert uncertainty_layer(viewer) is None
    press(trained, "show uncertainty")
    np.testing.assert_allclose(uncertainty_layer(viewer).data / 255, entropy, atol=0.01)
    press(trained, "show uncertainty")
    assert uncertainty_layer(viewer) is None
    assert not find(trained, "legend of the uncertainty").isVisible()


def test_a_layer_deleted_by_hand_is_not_wanted_any_more(viewer, trained):
    press(trained, "show uncertainty")
    predict_all(trained)
    viewer.layers.remove(uncertainty_layer(viewer))
    assert not find(trained, "show uncertainty").isChecked()
    predict_all(trained)
    assert uncertainty_layer(viewer) is None


def test_the_layer_goes_with_its_prediction_and_comes_with_the_next(viewer, trained, entropy):
    press(trained, "show uncertainty")
    predict_all(trained)
    first = uncertainty_layer(viewer)
    first.data[:] = 7
    predict_all(trained)
    assert uncertainty_layer(viewer) is first, "one layer for all predictions"
    np.testing.assert_allclose(first.data / 255, entropy, atol=0.01)
    viewer.layers.remove(trained.session.prediction)
    assert uncertainty_layer(viewer) is None
    predict_all(trained)
    assert uncertainty_layer(viewer) is not None


def test_without_its_image_the_layer_is_gone(viewer, trained):
    press(trained, "show uncertainty")
    predict_all(trained)
    for layer in [x for x in viewer.layers if noted(x).get("volume") is trained.session.volume]:
        viewer.layers.remove(layer)
    assert uncertainty_layer(viewer) is None
    assert trained.session.image is None


# The strip ---------------------------------------------------------------------


def test_the_strip_shows_the_confidence_of_each_slice(viewer, trained, entropy):
    bars, words = (find(trained, name) for name in
                   ("confidence by slice", "confidence of the slice on view"))  # fmt: skip
    assert not bars.isVisible(), "nothing is predicted yet"
    predict_all(trained)
    assert bars.isVisible()
    for axis, index, view in ((0, 5, "xy"), (1, 40, "xz"), (2, 11, "yz")):
        show_slice(viewer, trained.session.annotation, axis, index)
        expected = 1 - entropy.mean(axis=tuple(a for a in range(3) if a != axis))
        assert words.text() == (
            f"confidence of {view} {index}: {expected[index]:.2f}; all slices: "
            f"{expected.min():.2f} to {expected.max():.2f}"
        )
    viewer.dims.ndisplay = 3
    assert not bars.isVisible()


@pytest.mark.parametrize(("axis", "slices"), [(0, 24), (1, 48)])
def test_a_click_on_the_strip_goes_to_the_slice(viewer, trained, axis, slices):
    predict_all(trained)
    turn(viewer, axis)
    bars = find(trained, "confidence by slice")
    for index in (slices - 3, 0, slices - 1):
        x = round((index + 0.5) / slices * bars.width())
        QTest.mouseClick(bars, Qt.MouseButton.LeftButton, pos=QPoint(x, 10))
        assert visible_slice(viewer, trained.session.annotation) == (axis, index)


def test_the_strip_marks_the_slice_on_view_and_painted_slices(viewer, trained):
    predict_all(trained)
    bars = find(trained, "confidence by slice")

    def columns(index):
        show_slice(viewer, trained.session.annotation, 0, index)
        live(0.05)
        picture = bars.grab().toImage()
        scale = picture.width() / bars.width()
        return lambda at, y: picture.pixelColor(
            int((at + 0.5) / 24 * bars.width() * scale), int(y * scale)
        ).name()

    at_3, at_20 = columns(3), columns(20)
    assert at_3(3, 1) == at_20(20, 1) != at_20(3, 1)
    bottom = bars.height() - 3
    assert at_3(12, bottom) != at_3(6, bottom), "slice 12 is painted"


# The figures -------------------------------------------------------------------


def test_review_tells_where_the_model_is_not_reliable(trained, model):
    press(trained, "step Review")
    figures = find(trained, "how good the model is")
    advice = find(trained, "where the model is not reliable")
    evidence = Evidence(4, 0.03, 0.86, 0.70, 12.0, 0.05, (0.86, 0.85, None))
    trained.session.set_model(Model(replace(model.checkpoint, evidence=evidence), "kidney"))
    assert figures.isVisible() and advice.isVisible()
    assert "0.80 ± 0.03 · near paint 0.86 · far from paint 0.70 !" in figures.text()
    assert "unreliable between them" in advice.text()
    assert "The model itself" not in advice.text()
    uncertainty = empty_map((24, 48, 52), (1.0, 1.0, 1.0), 2)
    unsure_except_where_painted = uncertainty.entropy[0]
    unsure_except_where_painted += 1000.0
    unsure_except_where_painted[12] = 400.0
    uncertainty.entropy[1][:] = uncertainty.entropy[2][:] = 200.0
    trained.session.set_uncertainty(uncertainty)
    assert "The model itself is 2.5 times as unsure between your slices" in advice.text()
    trained.session.set_uncertainty(None)
    assert "The model itself" not in advice.text()
    good = replace(evidence, far=0.85)
    trained.session.set_model(Model(replace(model.checkpoint, evidence=good), "kidney"))
    assert figures.isVisible() and not advice.isVisible()
