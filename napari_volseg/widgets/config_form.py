"""A form made from a configuration dataclass: what is under "Advanced"."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QSpinBox,
    QWidget,
)

from napari_volseg.data.errors import InputError
from napari_volseg.widgets.parts import SPACING, named, narrow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

LARGEST = 10**6


class ConfigForm(QWidget):
    """One control for each field of a dataclass, with its documentation as the tooltip.

    Parameters
    ----------
    config_type : type
        A dataclass whose fields have defaults.
    help_texts : mapping of str to str
        What each field is for.
    leave_out : collection of str
        Fields that are set elsewhere.

    Signals
    -------
    changed()
        The user set something.
    """

    changed = Signal()

    def __init__(
        self, config_type: type, help_texts: Mapping[str, str], leave_out: Collection[str] = ()
    ) -> None:
        super().__init__()
        self._config_type = config_type
        self._readers: dict[str, Callable[[], Any]] = {}
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setSpacing(SPACING)
        hints = get_type_hints(config_type)
        for field in fields(config_type):
            if field.name not in leave_out:
                control, reader = make_control(hints[field.name], field.default)
                words = field.name.replace("_", " ")
                self._readers[field.name] = reader
                on_change(control, self.changed.emit)
                named(control, words, help_texts.get(field.name, ""))
                title = QLabel(words)
                title.setToolTip(control.toolTip())
                form.addRow(title, control)

    def config(self, **others: Any) -> Any:
        """Return the configuration the form shows, with the fields that were left out.

        Raises
        ------
        InputError
            For a value that is out of its range; the message names the field.
        """
        return self._config_type(**{name: read() for name, read in self._readers.items()}, **others)


def on_change(control: QWidget, act: Callable[[], object]) -> None:
    """Call ``act()`` when the value of a control of ``make_control`` changes."""
    if isinstance(control, QComboBox):
        signal = control.currentTextChanged
    elif isinstance(control, QCheckBox):
        signal = control.toggled
    elif isinstance(control, QLineEdit):
        signal = control.textChanged
    else:
        signal = control.valueChanged
    signal.connect(lambda _: act())


class PlainSpinBox(QDoubleSpinBox):
    """A spin box for numbers of any size that shows no trailing zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.setDecimals(8)
        self.setRange(0, LARGEST)
        self.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)

    def textFromValue(self, value: float) -> str:
        """Write the number as short as can be."""
        return f"{value:g}"


def make_control(hint: Any, default: Any) -> tuple[QWidget, Callable[[], Any]]:
    """Make the control for a type, and the function that reads it.

    Raises
    ------
    TypeError
        For a type that has no control.
    """
    if get_origin(hint) is Literal:
        combo = QComboBox()
        combo.addItems([str(choice) for choice in get_args(hint)])
        combo.setCurrentText(str(default))
        return narrow(combo), combo.currentText
    if hint is bool:
        check = QCheckBox()
        check.setChecked(default)
        return check, check.isChecked
    if hint is int:
        whole = QSpinBox()
        whole.setRange(0, LARGEST)
        whole.setValue(default)
        return narrow(whole), whole.value
    if hint is float:
        number = PlainSpinBox()
        number.setValue(default)
        return narrow(number), number.value
    if hint is str:
        text = QLineEdit(default)
        return narrow(text), text.text
    if hint == tuple[float, ...]:
        numbers = QLineEdit(", ".join(f"{x:g}" for x in default))
        numbers.setPlaceholderText("numbers, as 1, 2.5, 1")
        return narrow(numbers), lambda: parse_numbers(numbers.text())
    raise TypeError(f"no control for a field of type {hint}")


def parse_numbers(text: str) -> tuple[float, ...]:
    """Read numbers separated by commas.

    Raises
    ------
    InputError
        If something among them is no number.
    """
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise InputError(f"{text!r}: give numbers separated by commas, as 1, 2.5, 1") from None
