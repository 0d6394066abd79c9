"""The offer of what an earlier session painted and never saved: a strip, not a dialog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFrame

from napari_volseg.widgets.parts import button, column, count, label, on_click, row

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_volseg.data.journal import Recovery


class RecoveryStrip(QFrame):
    """One unsaved annotation, with [Restore] and [Discard].

    Parameters
    ----------
    recovery : Recovery
    restore, discard : callable (strip)
        What the buttons do.
    """

    def __init__(
        self,
        recovery: Recovery,
        restore: Callable[[RecoveryStrip], None],
        discard: Callable[[RecoveryStrip], None],
    ) -> None:
        super().__init__()
        self.recovery = recovery
        self.setProperty("role", "strip")
        text = label(what_is_offered(recovery), name="unsaved annotation")
        keep = button("Restore", "restore annotation", "Open it as a layer, as it was.")
        drop = button("Discard", "discard annotation", "Delete it for good.")
        layout = column(self, [text, row(keep, drop)])
        layout.setContentsMargins(8, 6, 8, 6)
        on_click(keep, restore, self)
        on_click(drop, discard, self)


def what_is_offered(recovery: Recovery) -> str:
    """Say what an earlier session left."""
    what = "Review" if recovery.in_file else "Unsaved annotation"
    figures = [f"{count(recovery.painted_voxels)} voxels"]
    if not recovery.painted_voxels and not recovery.reviewed:
        figures = ["nothing painted any more; undo brings it back"]
    if recovery.reviewed:
        figures.append(f"{count(recovery.reviewed)} objects reviewed")
    return (
        f"{what} of {recovery.header.name} from {recovery.time:%d %b %H:%M}, {', '.join(figures)}."
    )
