from __future__ import annotations

import pytest

from napari_volseg.data.errors import InputError
from napari_volseg.training import plan_memory
from napari_volseg.training.plan_memory import MemoryPlan
from napari_volseg.widgets import forecast as forecast_line
from tests.widgets.hands import find, live, press, wait_until

LINE = "memory and time that training needs"


def line(dock):
    return find(dock, LINE)


def says(dock, text: str) -> None:
    wait_until(lambda: line(dock).isVisible() and text in line(dock).text(), f"it says {text}")


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Ask 50 ms after the last choice."""
    monkeypatch.setattr(forecast_line, "GATHER_MS", 50)


@pytest.fixture
def foreseen(monkeypatch):
    """Answer at once, and keep what was asked."""
    asked = []

    def forecast(volume, n_classes, config, resume):
        asked.append((volume, n_classes, config, resume))
        if config.model == "two_stage":
            raise InputError("it will not fit")
        tight = "patches of 8 x 8 x 8 voxels, to fit" if config.model == "unet2d" else ""
        return MemoryPlan(12 * 10**8, 81 * 10**8, None, smaller=tight)

    monkeypatch.setattr(plan_memory, "forecast", forecast)
    return asked


def choose(dock, model: str) -> None:
    box = find(dock, "architecture")
    wait_until(lambda: box.findData(model) >= 0, "architectures are listed")
    box.setCurrentIndex(box.findData(model))


def test_what_training_needs_is_shown_before_it(painted, foreseen):
    press(painted, "step Train")
    find(painted, "minutes to train").setValue(5)
    says(painted, "needs about 1.2 GB of 8.1 GB free · 5 min")
    assert line(painted).property("role") == "muted"
    volume, n_classes, config, resume = foreseen[-1]
    assert volume is painted.session.volume and n_classes == 3
    assert (config.model, config.minutes, resume) == ("unet3d", 5.0, None)


def test_the_line_follows_what_is_chosen(painted, foreseen, model):
    press(painted, "step Train")
    find(painted, "minutes to train").setValue(90)
    says(painted, "· 1 h 30 min")
    find(painted, "steps").setValue(40)
    says(painted, "· 40 steps")
    find(painted, "device").setText("cpu")
    wait_until(lambda: foreseen[-1][2].device == "cpu", "the device is asked about")
    painted.session.set_model(model)
    wait_until(lambda: foreseen[-1][3] is model.checkpoint, "it would go on from the model")
    find(painted, "start afresh").setChecked(True)
    wait_until(lambda: foreseen[-1][3] is None, "it would start afresh")


def test_a_tight_fit_is_a_warning_that_says_what_was_made_smaller(painted, foreseen):
    press(painted, "step Train")
    find(painted, "minutes to train").setValue(5)
    choose(painted, "unet2d")
    says(painted, "8.1 GB free · patches of 8 x 8 x 8 voxels, to fit · 5 min")
    assert line(painted).property("role") == "warning"
    choose(painted, "two_stage")
    says(painted, "it will not fit")
    choose(painted, "unet3d")
    says(painted, "needs about 1.2 GB of 8.1 GB free · 5 min")
    assert line(painted).property("role") == "muted"


def test_choices_in_a_row_are_asked_about_once(painted, foreseen):
    press(painted, "step Train")
    says(painted, "needs about")
    before = len(foreseen)
    for minutes in range(6, 20):
        find(painted, "minutes to train").setValue(minutes)
    says(painted, "· 19 min")
    assert len(foreseen) <= before + 2


def test_nothing_is_said_where_nothing_can_be_trained(on_phantom, foreseen):
    press(on_phantom, "step Train")
    live(0.2)
    assert not line(on_phantom).isVisible() and not foreseen


def test_nothing_is_estimated_before_the_step_is_seen(painted, foreseen):
    live(0.2)
    assert not foreseen


def test_the_line_is_gone_while_training(painted, foreseen, stand_in):
    press(painted, "step Train")
    says(painted, "needs about")
    press(painted, "train")
    wait_until(lambda: not line(painted).isVisible(), "it is gone")
    painted.train.stop()
    wait_until(lambda: not painted.train.job.running, "it stops")
    says(painted, "needs about")
