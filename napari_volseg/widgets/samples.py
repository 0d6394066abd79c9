"""What stands in the dock while there is nothing to segment: how to begin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from qtpy.QtWidgets import QPushButton, QWidget

from napari_volseg.widgets.parts import button, column, label, on_click, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel

    from napari_volseg.widgets.jobs import Background

SAMPLES = (
    (
        "Kidney phantom",
        "kidney_phantom",
        "Three channels of branching tubes, generated: a stand-in for the Xenopus kidney of "
        "the 3D U-Net paper, with its truth.",
    ),
    (
        "MNI152 head",
        "mni152_head",
        "The average head of the Montreal Neurological Institute; needs the package nilearn.",
    ),
)


class SamplePage(QWidget):
    """The empty state: open, drop, or try a sample."""

    def __init__(self, viewer: ViewerModel, background: Background) -> None:
        super().__init__()
        self._viewer = viewer
        self._background = background
        self._status = label(role="muted", name="sample state")
        self._buttons: list[QPushButton] = []
        for title, function, why in SAMPLES:
            made = button(title, f"open sample {title}", why, primary=not self._buttons)
            on_click(made, self._open, function)
            self._buttons.append(made)
        column(
            self,
            [
                label("Open or drop a 3D image, or try a sample:", role="title"),
                *self._buttons,
                self._status,
                label(
                    "TIFF, NIfTI, OME-Zarr, NumPy; up to four channels. Then paint a few "
                    "slices, train, and get the whole volume.",
                    role="muted",
                ),
            ],
        )
        say(self._status, "")

    def _open(self, function: str) -> None:
        for made in self._buttons:
            made.setEnabled(False)
        say(self._status, "Making the sample\N{HORIZONTAL ELLIPSIS}")
        self._background.run(make_sample, function, done=self._show, failed=self._done)

    def _show(self, layers: Sequence[tuple[Any, dict[str, Any], str]]) -> None:
        for data, attributes, kind in layers:
            self._viewer.add_layer(Layer.create(data, attributes, kind))
        self._done()

    def _done(self) -> None:
        for made in self._buttons:
            made.setEnabled(True)
        say(self._status, "")


def make_sample(function: str) -> Sequence[tuple[Any, dict[str, Any], str]]:
    """Make a sample's layers as napari's sample menu does, in a thread.

    Raises
    ------
    InputError
        If a package that the sample comes from is not installed.
    """
    from napari_volseg.widgets import contributions

    layers: Sequence[tuple[Any, dict[str, Any], str]] = getattr(contributions, function)()
    return layers
