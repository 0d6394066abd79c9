"""Objects saved as surfaces: a button, and how far it is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from napari.utils.notifications import show_warning
from qtpy.QtWidgets import QWidget

from napari_volseg.widgets.files import SURFACE_SUFFIXES, ask_where_to_save, say_saved
from napari_volseg.widgets.long_work import LongWork
from napari_volseg.widgets.parts import button, column, row
from napari_volseg.widgets.work import save_surfaces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

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
        self._save = button(
            "Save surfaces\N{HORIZONTAL ELLIPSIS}",
            "save surfaces",
            "Write the objects that the table shows, or several selected in it (with Ctrl), as "
            "closed surfaces for 3D programs: "
            "STL, OBJ (keeps them apart by name) or PLY (keeps the colors of the classes).",
        )
        self.work = LongWork(
            "saving surfaces", "How many surfaces are found.", "Stop; no file is written."
        )
        column(self, [row(self._save), self.work])
        self._save.clicked.connect(self.save)
        self._show()

    def set_objects(
        self,
        objects: Objects | None,
        volume: Volume | None = None,
        classes: Sequence[LabelClass] = (),
    ) -> None:
        """Take these objects of a mask of a volume, or (None) none."""
        self.work.cancel()
        self._objects, self._volume, self._classes = objects, volume, classes
        self._show()

    def save(self) -> None:
        """Ask for a file and write the surfaces there, in the background."""
        objects, volume = self._objects, self._volume
        if objects is None or volume is None or self.work.working:
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
        self.work.run(
            partial(save_surfaces, path, objects, numbers, volume, self._classes),
            done=self._on_saved,
            failed=self._show,
        )
        self._show()

    def _on_saved(self, path: Path) -> None:
        say_saved(path)
        self._show()

    def _show(self) -> None:
        self._save.setEnabled(self._objects is not None and not self.work.working)

    def shutdown(self) -> None:
        """End the thread at its next surface, and drop what it still says."""
        self.work.shutdown()
