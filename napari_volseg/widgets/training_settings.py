"""What to train and for how long; everything else under "Advanced"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QWidget
from superqt import QCollapsible

from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.sparse.config_help import field_help
from napari_volseg.widgets.config_form import ConfigForm
from napari_volseg.widgets.parts import button, column, label, named, narrow, on_click, row
from napari_volseg.widgets.work import list_architectures

if TYPE_CHECKING:
    from qtpy.QtGui import QShowEvent

    from napari_volseg.widgets.jobs import Background
    from napari_volseg.widgets.settings import Memory

SET_ABOVE_THE_FORM = ("model", "minutes", "until_no_better", "options")
MINUTES = (1, 5, 15)
SHORTEST_MINUTES = 0.05
LONGEST_MINUTES = 24 * 60.0


class TrainingSettings(QWidget):
    """Architecture, time, and a form for all other fields of ``TrainingConfig``.

    Parameters
    ----------
    beside : QWidget
        What is shown in the line of "or until it no longer improves".

    Signals
    -------
    changed()
        Something is chosen differently.
    """

    changed = Signal()

    def __init__(self, background: Background, memory: Memory, beside: QWidget) -> None:
        super().__init__()
        self._background = background
        self._memory = memory
        self._listed = False
        default = TrainingConfig()
        self._model = named(QComboBox(), "architecture", "The network that learns.")
        self._model.addItem("3D U-Net", default.model)
        self._minutes = named(
            QDoubleSpinBox(),
            "minutes to train",
            "How long to train. Stop is always possible, and Train goes on where it stopped.",
        )
        self._minutes.setRange(SHORTEST_MINUTES, LONGEST_MINUTES)
        self._minutes.setSuffix(" min")
        self._minutes.setValue(memory.get("minutes", default.minutes))
        presets = []
        for minutes in MINUTES:
            preset = button(str(minutes), f"train {minutes} min", f"Train for {minutes} minutes.")
            on_click(preset, self._minutes.setValue, float(minutes))
            presets.append(preset)
        self._until = named(
            QCheckBox("or until it no longer improves"),
            "train until it no longer improves",
            "End earlier, once the IoU on held-out painted voxels no longer improves. The "
            "minutes are then the most that it takes.",
        )
        self._until.setChecked(memory.get("until_no_better", default.until_no_better))
        self._form = ConfigForm(TrainingConfig, field_help(TrainingConfig), SET_ABOVE_THE_FORM)
        advanced = QCollapsible(
            "Advanced",
            expandedIcon="\N{BLACK DOWN-POINTING SMALL TRIANGLE}",
            collapsedIcon="\N{BLACK RIGHT-POINTING SMALL TRIANGLE}",
        )
        named(
            advanced.toggleButton(),
            "advanced training settings",
            "Everything else. Defaults are chosen from the device and the volume.",
        )
        advanced.setContent(self._form)
        advanced.collapse(animate=False)
        for frame in (advanced, advanced.content()):
            if (layout := frame.layout()) is not None:
                layout.setContentsMargins(0, 0, 0, 0)
        column(
            self,
            [
                row(label("model"), narrow(self._model), stretch=1),
                row(label("time"), *presets, self._minutes, stretch=len(presets) + 1),
                row(self._until, beside),
                advanced,
            ],
        )

        self._model.currentIndexChanged.connect(lambda _: self.changed.emit())
        self._minutes.valueChanged.connect(lambda _: self.changed.emit())
        self._form.changed.connect(self.changed)

    def config(self) -> TrainingConfig:
        """Return the configuration that is chosen.

        Raises
        ------
        InputError
            For a value that is out of its range; the message names the field.
        """
        config: TrainingConfig = self._form.config(
            model=self._model.currentData(),
            minutes=self._minutes.value(),
            until_no_better=self._until.isChecked(),
        )
        return config

    def remember(self, config: TrainingConfig) -> None:
        """Choose the same next time."""
        self._memory.set("model", config.model)
        self._memory.set("minutes", config.minutes)
        self._memory.set("until_no_better", config.until_no_better)

    def showEvent(self, event: QShowEvent | None) -> None:
        """List the architectures when the step is first seen: that imports torch."""
        super().showEvent(event)
        if not self._listed:
            self._listed = True
            self._background.run(list_architectures, done=self._show_architectures)

    def _show_architectures(self, found: list[tuple[str, str, str]]) -> None:
        wanted = self._memory.get("model", self._model.currentData())
        self._model.blockSignals(True)
        self._model.clear()
        for index, (name, title, summary) in enumerate(found):
            self._model.addItem(title, name)
            self._model.setItemData(index, summary, Qt.ItemDataRole.ToolTipRole)
        self._model.setCurrentIndex(max(0, self._model.findData(wanted)))
        self._model.blockSignals(False)
        self.changed.emit()
