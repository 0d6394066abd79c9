"""How far the model is to be relied on: the held-out figures, and what to paint next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QWidget

from napari_volseg.review.reliability import held_out_figures, reliability_advice
from napari_volseg.widgets.parts import column, label, say

if TYPE_CHECKING:
    from napari_volseg.widgets.session import Session


class ReliabilityPanel(QWidget):
    """A line of figures, and below it, where there is something to say, what they mean."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._figures = label(name="how good the model is")
        self._figures.setToolTip(
            "Agreement with painted voxels that were not trained on: intersection over union, the "
            "mean over the foreground classes. \N{PLUS-MINUS SIGN}: 95% interval over painted "
            "slices. Far: farther from what was trained on than half of the volume is. Then by "
            "the orientation of the slices. ! is lower by more than 0.1."
        )
        self._advice = label(role="warning", name="where the model is not reliable")
        column(self, [self._figures, self._advice])
        session.changed.model.connect(self._show)
        self._show()

    def _show(self) -> None:
        model = self._session.model
        if model is None:
            say(self._figures, "")
            say(self._advice, "")
            return
        say(self._figures, held_out_figures(model.checkpoint))
        say(self._advice, "\n".join(reliability_advice(model.checkpoint)))
