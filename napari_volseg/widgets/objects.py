"""The objects of the prediction: found, reviewed one by one, sorted into types, saved."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QWidget

from napari_volseg.data.tiles import center_of
from napari_volseg.widgets.finding import FoundObjects, find_objects_of
from napari_volseg.widgets.keys import REVIEW_KEY
from napari_volseg.widgets.layers import classes_of, noted
from napari_volseg.widgets.long_work import LongWork
from napari_volseg.widgets.object_types import TypesPanel
from napari_volseg.widgets.parts import button, column, count, label, row, say
from napari_volseg.widgets.queue import QueuePanel
from napari_volseg.widgets.surfaces import SurfaceSaver
from napari_volseg.widgets.verdicts import kept_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Labels

    from napari_volseg.data.kept import KeptObject
    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.volume import Volume
    from napari_volseg.review.objects import Objects
    from napari_volseg.widgets.jobs import Background
    from napari_volseg.widgets.session import Session
    from napari_volseg.widgets.settings import Memory
    from napari_volseg.widgets.undo import Undo

MOST_PLACES = 6
"""Slices that are named; more make no line of the dock."""


class ObjectsPanel(QWidget):
    """Find the objects; the panels below work on them until there is another prediction.

    Attributes
    ----------
    types : TypesPanel
        Sorts the objects; shown elsewhere.
    """

    def __init__(
        self, session: Session, background: Background, memory: Memory, undo: Undo
    ) -> None:
        super().__init__()
        self._session = session
        self._volume: Volume | None = None
        self._objects: Objects | None = None
        self._find = button(
            f"Find objects  {REVIEW_KEY}",
            "find objects",
            "Every connected region of one class of the prediction is an object.",
        )
        self._found = label(role="muted", name="objects found")
        self.work = LongWork(
            "finding", "How much of the mask is searched.", "Stop; the mask stays as it is."
        )
        self._unfit = label(role="warning", name="verdicts that do not fit")
        self.queue = QueuePanel(session, background, memory, undo)
        self.types = TypesPanel(session, background, memory)
        self._surfaces = SurfaceSaver(memory, self.queue.list.meant)
        column(
            self,
            [
                row(self._find, self._found, stretch=1),
                self.work,
                self._unfit,
                self.queue,
                self._surfaces,
            ],
        )
        self._find.clicked.connect(self.find)
        self.queue.reviewed.connect(self._on_reviewed)
        session.changed.prediction.connect(self.forget)
        session.changed.busy.connect(self._show)
        session.changed.annotation.connect(self._on_annotation)
        self._show()

    def _on_annotation(self) -> None:
        if self.queue.reviewing.forgotten:
            self.forget()
            whose = "This annotation has verdicts of its own"
            gone = "The annotation is gone, and its verdicts with it"
            why = gone if self._session.annotation is None else whose
            say(self._found, f"{why}; find the objects again.")

    def forget(self) -> None:
        """Forget the objects: the prediction they were found in is gone, or another one now."""
        self.work.cancel()
        say(self._found, "")
        self.queue.end()
        self._show()

    def find(self) -> None:
        """Find the objects of the prediction, in the background."""
        prediction, volume = self._session.prediction, self._session.volume
        if prediction is None or volume is None or self._session.busy:
            return
        self.forget()
        say(self._found, "Looking for them\N{HORIZONTAL ELLIPSIS}")
        mask = prediction.data
        doubt, kept = noted(prediction).get("doubt"), kept_in(self._session)
        self.work.run(
            partial(find_objects_of, mask.copy(), kept, volume, doubt),
            done=partial(self._on_found, prediction, mask, volume),
            failed=partial(say, self._found, ""),
            refused=partial(say, self._found),
        )

    def _on_found(
        self, prediction: Labels, mask: AnyLabels, volume: Volume, found: FoundObjects
    ) -> None:
        say(self._found, "")
        if prediction is not self._session.prediction or mask is not prediction.data:
            return
        self._volume = volume
        if found.objects.found:
            self.queue.start(prediction, volume, found)
        else:
            empty = "No object: everything is background. Predict first, or train longer."
            say(self._found, empty)

    def _on_reviewed(self) -> None:
        objects, before = self.queue.reviewing.objects, self._objects
        self._objects = objects
        say(self._unfit, what_does_not_fit(self.queue.reviewing.unfit))
        if objects is before:
            return
        prediction = self._session.prediction
        classes = () if prediction is None else classes_of(prediction)
        self._surfaces.set_objects(objects, self._volume, classes)
        if objects is None or before is None:
            self.types.set_objects(objects, self._volume)
        else:
            self.types.update_objects(objects)
        self._show()

    def _show(self) -> None:
        objects = self._objects
        self._find.setEnabled(self._session.prediction is not None and not self._session.busy)
        if objects is not None:
            say(self._found, f"{count(len(objects.found))} objects")
        for panel in (self.queue, self._surfaces):
            panel.setVisible(objects is not None)

    def shutdown(self) -> None:
        """End the threads, and let go of the layers."""
        self.work.shutdown()
        self.queue.shutdown()
        self.types.shutdown()
        self._surfaces.shutdown()


def what_does_not_fit(unfit: Sequence[KeptObject]) -> str:
    """Say which verdicts are about objects that the mask does not have; "" if none is."""
    if not unfit:
        return ""
    places = ", ".join(str(round(center_of(one.box)[0])) for one in unfit[:MOST_PLACES])
    more = "\N{HORIZONTAL ELLIPSIS}" * (len(unfit) > MOST_PLACES)
    were = "1 object was" if len(unfit) == 1 else f"{count(len(unfit))} objects were"
    return (
        f"{were} rejected before, but this mask has others in the same places: look again at "
        f"xy slice {places}{more}."
    )
