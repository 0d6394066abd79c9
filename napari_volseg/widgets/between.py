"""Proposals for the slices between painted ones: computed, shown hatched, accepted by keys."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QWidget

from napari_volseg.data.annotation import UNLABELED, VIEW_OF_AXIS
from napari_volseg.data.errors import InputError
from napari_volseg.data.labeled import unlabeled_like
from napari_volseg.data.tiles import slice_region
from napari_volseg.widgets.acts import act_on, acting, fill_unlabeled
from napari_volseg.widgets.jobs import Job
from napari_volseg.widgets.keys import Key
from napari_volseg.widgets.layers import (
    classes_of,
    set_classes,
    slice_on_view,
)
from napari_volseg.widgets.long_work import ProgressBar
from napari_volseg.widgets.parts import button, column, label, named, row
from napari_volseg.widgets.proposals import hatched, new_proposals
from napari_volseg.widgets.verdicts import corrections_of
from napari_volseg.widgets.work import propose_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Labels

    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.tiles import Region
    from napari_volseg.review.between import Proposal
    from napari_volseg.widgets.session import Session

FILL_KEY = "I"
COPY_KEY = "D"
ACCEPT_KEY = "Y"
ACCEPT_ALL_KEY = "Shift+Y"
DISMISS_KEY = "Shift+I"

REFRESH_MS = 200


class BetweenPanel(QWidget):
    """Fill between painted slices, copy the next one; accept or dismiss what is proposed."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.job = Job(self)
        self._layer: Labels | None = None
        # What is proposed; the layer shows only the stripes of it.
        self._proposed: AnyLabels | None = None
        self._axis = 0
        self._slices: set[int] = set()
        self._build()
        self._refresh = QTimer(self)
        self._refresh.setSingleShot(True)
        self._refresh.setInterval(REFRESH_MS)
        self._refresh.timeout.connect(self._on_refresh)
        self.job.yielded.connect(self._on_proposal)
        self.job.refused.connect(show_warning)
        self.job.ended.connect(self._show)
        session.changed.image.connect(self.dismiss)
        session.changed.annotation.connect(self.dismiss)
        session.changed.classes.connect(self._show_classes)
        session.viewer.layers.events.removed.connect(self._on_removed)
        self._show()

    def _build(self) -> None:
        self._fill = button(
            f"Fill between  {FILL_KEY}",
            "fill between painted slices",
            "Propose labels for the slices between the painted ones of this view, from their "
            "outlines and the image. Nothing is painted until you accept it.",
        )
        self._copy = button(
            f"Copy neighbor  {COPY_KEY}",
            "copy the nearest painted slice",
            "Copy the nearest painted slice of this view to where this slice is unlabeled.",
        )
        self._progress = ProgressBar(
            "filling", "How much is proposed.", "Stop; what is proposed so far stays."
        )
        self._state = label(role="hint", name="what is proposed")
        self._accept = button(
            f"Accept slice  {ACCEPT_KEY}",
            "accept proposals of the slice",
            "Paint what is proposed in the slice on view. Undo takes it back.",
        )
        self._accept_all = button(
            f"All  {ACCEPT_ALL_KEY}",
            "accept all proposals",
            "Paint all that is proposed. Undo takes it back.",
        )
        self._dismiss = button(
            f"Dismiss  {DISMISS_KEY}", "dismiss proposals", "Take all proposals away."
        )
        self._learn = named(
            QCheckBox("train on what is proposed, too"),
            "train on proposals",
            "The next training also learns from what is proposed then, with less weight than "
            "from paint: Train, advanced, proposal weight.",
        )
        self._open = QWidget()
        accepting = row(self._accept, self._accept_all, self._dismiss)
        column(self._open, [self._state, accepting, self._learn])
        column(self, [row(self._fill, self._copy), self._progress, self._open])
        self._fill.clicked.connect(self.fill)
        self._progress.cancelled.connect(self.job.cancel)
        self._copy.clicked.connect(self.copy_neighbor)
        self._accept.clicked.connect(self.accept_slice)
        self._accept_all.clicked.connect(self.accept_all)
        self._dismiss.clicked.connect(self.dismiss)
        self._learn.toggled.connect(self._show)

    def keys(self) -> tuple[Key, ...]:
        """Return what to bind on the annotation."""
        return (
            Key(FILL_KEY, "fill between painted slices", self.fill),
            Key(ACCEPT_KEY, "accept the proposal of the slice", self.accept_slice),
            Key(ACCEPT_ALL_KEY, "accept all proposals", self.accept_all),
            Key(DISMISS_KEY, "dismiss the proposals", self.dismiss),
            Key(COPY_KEY, "copy the nearest painted slice", self.copy_neighbor),
        )

    def fill(self) -> None:
        """Propose labels between the painted slices of the view, in the background."""
        session = self._session
        annotation, volume = session.annotation, session.volume
        if self.job.running or annotation is None or volume is None:
            return
        try:
            axis, index = slice_on_view(session.viewer, annotation)
        except InputError as error:
            show_warning(str(error))
            return
        self.dismiss()
        self._axis = axis
        self._proposed = unlabeled_like(annotation.data, annotation.data.dtype)
        labels = annotation.data.copy()
        self._progress.begin()
        self.job.start(propose_on, volume, labels, axis, index, corrections_of(annotation))
        self._show()

    def _on_proposal(self, proposal: Proposal) -> None:
        annotation, region, labels = self._session.annotation, proposal.region, proposal.labels
        self._progress.show_fraction(proposal.fraction)
        if region is None or labels is None or self._proposed is None or annotation is None:
            return
        if self._layer is None:
            self._layer = new_proposals(annotation)
            self._session.insert_overlay(self._layer)
        self._proposed[region] = labels
        self._layer.data[region] = hatched(labels, region)
        self._slices.update(range(region[self._axis].start, region[self._axis].stop))
        if not self._refresh.isActive():
            self._refresh.start()

    def _on_refresh(self) -> None:
        if self._layer is not None:
            self._layer.refresh(extent=False)
        self._show()

    def accept_slice(self) -> None:
        """Paint what is proposed in the slice on view, where it is unlabeled."""
        annotation = self._session.annotation
        if annotation is None or self._layer is None:
            return
        try:
            axis, index = slice_on_view(self._session.viewer, annotation)
        except InputError as error:
            show_warning(str(error))
            return
        if not self._accept_region(annotation, slice_region(annotation.data.shape, axis, index)):
            show_info("nothing is proposed in this slice")
        if axis == self._axis:
            self._slices.discard(index)
        self._close_if_empty()

    def accept_all(self) -> None:
        """Paint all that is proposed, where it is unlabeled."""
        annotation = self._session.annotation
        if annotation is None or not self._slices:
            return
        z, y, x = (
            slice(min(self._slices), max(self._slices) + 1) if a == self._axis else slice(0, n)
            for a, n in enumerate(annotation.data.shape)
        )
        self._accept_region(annotation, (z, y, x))
        self._slices.clear()
        self._close_if_empty()

    def _accept_region(self, annotation: Labels, region: Region) -> int:
        assert self._proposed is not None and self._layer is not None, "there are proposals"
        with acting(annotation, "accept proposals"):
            painted = fill_unlabeled(annotation, region, self._proposed[region])
        self._proposed[region] = UNLABELED
        self._layer.data[region] = UNLABELED
        self._layer.refresh(extent=False)
        return painted

    def _close_if_empty(self) -> None:
        if not self._slices and not self.job.running:
            self.dismiss()
        self._show()

    def dismiss(self) -> None:
        """Take all proposals away, and stop making more."""
        self.job.cancel()
        layer, layers = self._layer, self._session.viewer.layers
        self._forget()
        if layer is not None and layer in layers:
            layers.remove(layer)

    def _forget(self) -> None:
        self._layer, self._proposed = None, None
        self._slices.clear()
        self._show()

    def copy_neighbor(self) -> None:
        """Copy the nearest painted slice of the view to where this slice is unlabeled."""
        session = self._session
        if session.annotation is not None:
            painted = [(s.axis, s.index) for s in session.painted.slices]
            copy = partial(copy_neighbor, session.viewer, session.annotation, painted)
            nothing = "this slice is labeled already wherever its neighbor is"
            act_on(session.annotation, "copy a slice", copy, nothing)

    def _on_removed(self, event: Any) -> None:
        if self._layer is not None and event.value is self._layer:
            self.job.cancel()
            self._forget()

    def _show_classes(self) -> None:
        if self._layer is None:
            return
        classes = self._session.classes
        if {c.id for c in classes_of(self._layer)} <= {c.id for c in classes}:
            set_classes(self._layer, classes)
        else:
            self.dismiss()

    def _show(self) -> None:
        running, annotation = self.job.running, self._session.annotation
        self._fill.setEnabled(annotation is not None and not running)
        self._copy.setEnabled(annotation is not None)
        self._progress.setVisible(running)
        self._open.setVisible(bool(self._slices))
        learned = self._slices and self._learn.isChecked()
        self._session.proposals = self._proposed if learned else None
        if self._slices:
            view, first, last = VIEW_OF_AXIS[self._axis], min(self._slices), max(self._slices)
            self._state.setText(
                f"Hatched: proposed in {len(self._slices)} {view} slices, {first} to {last}. "
                "Look through them; accept, or paint over what is wrong first."
            )

    def shutdown(self) -> None:
        """Take the layer away, end the thread, let go of the viewer."""
        self._refresh.stop()
        self.dismiss()
        self.job.shutdown()
        self._session.viewer.layers.events.removed.disconnect(self._on_removed)


def copy_neighbor(
    viewer: ViewerModel, annotation: Labels, painted: Sequence[tuple[int, int]]
) -> int:
    """Copy the nearest painted slice to where the visible slice of an annotation is unlabeled.

    One act of napari's undo.

    Parameters
    ----------
    painted : sequence of (axis, index)
        The painted slices.

    Returns
    -------
    int
        Voxels copied.

    Raises
    ------
    InputError
        If no slice is on view, or no other one of its axis is painted.
    """
    axis, index = slice_on_view(viewer, annotation)
    others = [i for a, i in painted if a == axis and i != index]
    if not others:
        view = VIEW_OF_AXIS[axis]
        raise InputError(f"no other {view} slice is painted; paint one to copy it from")
    nearest = min(others, key=lambda i: abs(i - index))
    shape = annotation.data.shape
    found = annotation.data[slice_region(shape, axis, nearest)]
    return fill_unlabeled(annotation, slice_region(shape, axis, index), found)
