"""Segmented buttons: the four steps, each with its one figure, and the parts of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QButtonGroup, QHBoxLayout, QSizePolicy, QWidget

from napari_volseg.widgets.parts import button, on_click

if TYPE_CHECKING:
    from collections.abc import Sequence


class StepBar(QWidget):
    """Buttons of which one is down.

    Parameters
    ----------
    steps : sequence of (name, why)
        Their names and tooltips.
    kind : str
        Their accessible names are this and the name.
    figures : bool
        Whether there is a line for a figure under each name.

    Signals
    -------
    picked(int)
        The position of the step that the user went to.
    """

    picked = Signal(int)

    def __init__(
        self, steps: Sequence[tuple[str, str]], kind: str = "step", *, figures: bool = True
    ) -> None:
        super().__init__()
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(1)
        group = QButtonGroup(self)
        self._names = [name for name, _ in steps]
        self._buttons = []
        for at, (name, why) in enumerate(steps):
            made = button(f"{name}\n" if figures else name, f"{kind} {name}", why)
            made.setCheckable(True)
            made.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            group.addButton(made)
            layout.addWidget(made, 1)
            on_click(made, self.picked.emit, at)
            self._buttons.append(made)

    def show_step(self, at: int) -> None:
        """Put the button of a step down."""
        self._buttons[at].setChecked(True)

    def show_figure(self, at: int, figure: str) -> None:
        """Show the figure of a step under its name."""
        self._buttons[at].setText(f"{self._names[at]}\n{figure}")
