"""What a training is going to take, before Train is pressed: memory and time in one line."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QWidget

from napari_volseg.data.errors import InputError
from napari_volseg.widgets.parts import DOT, column, duration, label, say, set_look

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtGui import QShowEvent

    from napari_volseg.data.volume import Volume
    from napari_volseg.models.checkpoint import Checkpoint
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.widgets.jobs import Background

GATHER_MS = 300
"""Choices that follow each other this fast are answered together."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A training that Train would start now: its volume, classes, settings and first model."""

    volume: Volume
    n_classes: int
    config: TrainingConfig
    resume: Checkpoint | None


@dataclass(frozen=True)
class Foreseen:
    """What to say of it, and whether that is a warning."""

    text: str
    warning: bool


class Forecast(QWidget):
    """A line that follows what is chosen, and is gone where nothing can be trained.

    Parameters
    ----------
    background : Background
        Estimates in a thread.
    ask : callable () -> Asked or None
        What Train would start.
    """

    def __init__(self, background: Background, ask: Callable[[], Asked | None]) -> None:
        super().__init__()
        self._background = background
        self._ask = ask
        self._asked = 0
        self._line = label(role="muted", name="memory and time that training needs")
        self._line.hide()
        column(self, [self._line])
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(GATHER_MS)
        self._timer.timeout.connect(self._foresee)

    def refresh(self) -> None:
        """Look soon at what would be trained now."""
        # Not before the step is seen: estimating imports torch.
        if self.isVisible():
            self._timer.start()

    def showEvent(self, event: QShowEvent | None) -> None:
        """Look anew: there may be more memory, or less."""
        super().showEvent(event)
        self.refresh()

    def _foresee(self) -> None:
        self._asked += 1
        asked = self._ask()
        if asked is None:
            say(self._line, "")
        else:
            self._background.run(foresee, asked, done=partial(self._show, self._asked))

    def _show(self, number: int, found: Foreseen) -> None:
        # A later question is on its way, or needs no answer.
        if number == self._asked:
            set_look(self._line, "role", "warning" if found.warning else "muted")
            say(self._line, found.text)

    def shutdown(self) -> None:
        """Ask nothing more."""
        self._timer.stop()


def foresee(asked: Asked) -> Foreseen:
    """Estimate, in a thread, what a training takes."""
    from napari_volseg.training.plan_memory import forecast

    config = asked.config
    try:
        plan = forecast(asked.volume, asked.n_classes, config, asked.resume)
    except InputError as error:
        return Foreseen(str(error), warning=True)
    time = f"{config.steps} steps" if config.steps else duration(60 * config.minutes)
    return Foreseen(DOT.join((*plan.parts, time)), plan.tight)
