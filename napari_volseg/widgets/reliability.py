"""How far the model is to be relied on: the held-out figures, and what to paint next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QWidget

from napari_volseg.review.reliability import held_out_figures, reliability_advice
from napari_volseg.review.uncertainty import doubt_between
from napari_volseg.widgets.parts import column, label, say

if TYPE_CHECKING:
    from napari_volseg.widgets.session import Session

DOUBT = 1.5
"""Times as unsure between painted slices as on them of which a user should know."""


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
        self._doubt: float | None = None
        session.changed.model.connect(self._show)
        session.changed.uncertainty.connect(self._on_uncertainty)
        self._show()

    def _on_uncertainty(self) -> None:
        """Compare slices painted by now, not those that will be painted for being unsure."""
        uncertainty, painted = self._session.uncertainty, self._session.painted
        self._doubt = None
        if uncertainty is not None:
            self._doubt = doubt_between(uncertainty, [(s.axis, s.index) for s in painted.slices])
        self._show()

    def _show(self) -> None:
        model = self._session.model
        if model is None:
            say(self._figures, "")
            say(self._advice, "")
            return
        say(self._figures, held_out_figures(model.checkpoint))
        advice = reliability_advice(model.checkpoint)
        if self._doubt is not None and self._doubt > DOUBT:
            advice += (
                f"The model itself is {self._doubt:.1f} times as unsure between your slices as on "
                "them.",
            )
        say(self._advice, "\n".join(advice))
