"""Objects saved as surfaces: a button, and how far it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari.utils.notifications import show_warning
from qtpy.QtWidgets import QProgressBar, QWidget

from napari_volseg.widgets.files import SURFACE_SUFFIXES, ask_where_to_save, say_saved
from napari_volseg.widgets.jobs import Job
from napari_volseg.widgets.parts import button, column, named, row
from napari_volseg.widgets.work import save_surfaces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.data.volume import Volume
    from napari_volseg.review.objects import Objects
    from napari_volseg.widgets.settings import Memory


class SurfaceSaver(QWidget):
    """Write objects as closed surfaces in physical units.

    Parameters
    ----------
    memory : Memory
    meant : callable () -> sequence of int
        The ids of the objects to write.
    """

    def __init__(self, memory: Memory, meant: Callable[[], Sequence[int]]) -> None:
        super().__init__()
        self._memory = memory
        self._meant = meant
        self._objects: Objects | None = None
        self._volume: Volume | None = None
        self._classes: Sequence[LabelClass] = ()
        self.job = Job(self)
        self._save = button(
            "Save surfaces\N{HORIZONTAL ELLIPSIS}",
            "save surfaces",
            "Write the objects that the table shows, or several selected in it (with Ctrl), as "
            "closed surfaces for 3D programs: "
            "STL, OBJ (keeps them apart by name) or PLY (keeps the colors of the classes).",
        )
        self._cancel = button("Cancel", "cancel saving surfaces", "Stop; no file is written.")
        self._bar = named(QProgressBar(), "saving surfaces", "How many surfaces are found.")
        self._bar.setRange(0, 100)
        column(self, [row(self._save, self._cancel, self._bar, stretch=2)])
        self._save.clicked.connect(self.save)
        self._cancel.clicked.connect(self.job.cancel)
        self.job.yielded.connect(self._on_event)
        self.job.refused.connect(show_warning)
        self.job.ended.connect(self._show)
        self._show()

    def set_objects(
        self,
        objects: Objects | None,
        volume: Volume | None = None,
        classes: Sequence[LabelClass] = (),
    ) -> None:
        """Take these objects of a mask of a volume, or (None) none."""
        self.job.cancel()
        self._objects, self._volume, self._classes = objects, volume, classes
        self._show()

    def save(self) -> None:
        """Ask for a file and write the surfaces there, in the background."""
        objects, volume = self._objects, self._volume
        if objects is None or volume is None or self.job.running:
            return
        numbers = list(self._meant())
        if not numbers:
            show_warning("no object to save: the filter of the table lets none through")
            return
        path = ask_where_to_save(
            self, self._memory, "Save surfaces", f"{volume.name}_surfaces", SURFACE_SUFFIXES
        )
        if path is None:
            return
        self._bar.setValue(0)
        self.job.start(save_surfaces, path, objects, numbers, volume, self._classes)
        self._show()

    def _on_event(self, event: float | Path) -> None:
        if isinstance(event, Path):
            say_saved(event)
        else:
            self._bar.setValue(round(100 * event))

    def _show(self) -> None:
        self._save.setEnabled(self._objects is not None and not self.job.running)
        self._cancel.setVisible(self.job.running)
        self._bar.setVisible(self.job.running)

    def shutdown(self) -> None:
        """End the thread at its next surface, and drop what it still says."""
        self.job.shutdown()
