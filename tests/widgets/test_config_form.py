from __future__ import annotations

from dataclasses import dataclass

import pytest

from napari_volseg.data.errors import InputError
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.config_help import field_help
from napari_volseg.widgets.config_form import ConfigForm, PlainSpinBox, make_control, parse_numbers
from napari_volseg.widgets.training_settings import SET_ABOVE_THE_FORM
from tests.widgets.hands import find


@pytest.fixture
def form(qtbot):
    form = ConfigForm(TrainingConfig, field_help(TrainingConfig), SET_ABOVE_THE_FORM)
    qtbot.addWidget(form)
    return form


def test_an_untouched_form_gives_the_defaults(form):
    assert form.config() == TrainingConfig()


def test_every_field_has_a_control_that_says_what_it_is_for(form):
    texts = field_help(TrainingConfig)
    for name in texts.keys() - set(SET_ABOVE_THE_FORM):
        control = find(form, name.replace("_", " "))
        assert control.toolTip() == texts[name]


def test_what_is_set_in_the_form_is_in_the_configuration(form):
    find(form, "optimizer").setCurrentText("sgd")
    find(form, "steps").setValue(7)
    find(form, "learning rate").setValue(0.0003)
    find(form, "flips").setChecked(False)
    find(form, "device").setText("cpu")
    find(form, "class weights").setText("1, 2.5")
    config = form.config(minutes=2.0)
    assert config == TrainingConfig(
        optimizer="sgd",
        steps=7,
        learning_rate=0.0003,
        flips=False,
        device="cpu",
        class_weights=(1, 2.5),
        minutes=2.0,
    )


def test_a_value_out_of_range_is_refused_by_name(form):
    find(form, "balance").setValue(3)
    with pytest.raises(InputError, match="balance"):
        form.config()


def test_numbers_show_as_short_as_can_be(qtbot):
    box = PlainSpinBox()
    qtbot.addWidget(box)
    box.setValue(0.0003)
    assert box.text() == "0.0003"
    box.setValue(4)
    assert box.text() == "4"


@pytest.mark.parametrize(("text", "numbers"), [("", ()), (" 1, 2.5 ,", (1, 2.5)), ("3", (3,))])
def test_numbers_are_read_from_text(text, numbers):
    assert parse_numbers(text) == numbers


def test_what_is_no_number_is_refused():
    with pytest.raises(InputError, match="separated by commas"):
        parse_numbers("1; two")


def test_a_type_without_a_control_is_a_defect_of_ours(qtbot):
    @dataclass
    class Odd:
        field: complex = 1j

    with pytest.raises(TypeError, match="no control"):
        make_control(complex, Odd.field)
