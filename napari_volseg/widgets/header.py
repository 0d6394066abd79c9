"""Which image and which annotation one works on, and whether the annotation is on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.utils.notifications import show_warning
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QGridLayout, QSizePolicy, QWidget

from napari_volseg.data.errors import InputError
from napari_volseg.widgets.keys import HELP_KEY, NEW_KEY
from napari_volseg.widgets.parts import SPACING, button, label, named, say, set_primary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Layer

    from napari_volseg.widgets.session import Session


class LayerChoice(QComboBox):
    """A list of layers to choose from, with an entry for none on top.

    Parameters
    ----------
    none : str
        What to call that entry.

    Signals
    -------
    chosen(object)
        The layer that the user picked, or None.
    """

    chosen = Signal(object)

    def __init__(self, none: str) -> None:
        super().__init__()
        self._none = none
        self._layers: list[Layer | None] = [None]
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setMinimumContentsLength(8)
        self.activated.connect(lambda index: self.chosen.emit(self._layers[index]))

    def show_layers(
        self, layers: Sequence[Layer], names: Sequence[str], current: Layer | None
    ) -> None:
        """List these layers; ``current`` is the chosen one."""
        self._layers = [None, *layers]
        self.clear()
        self.addItems([self._none, *names])
        self.setCurrentIndex(self._layers.index(current) if current in self._layers else 0)


class Header(QWidget):
    """The choice of layers, [New], [?], and the state of the autosave.

    Signals
    -------
    help_wanted()
        The user asks for the keys, or has read them.
    """

    help_wanted = Signal()

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._images = named(
            LayerChoice("none"),
            "image",
            "The volume to segment; a 3D image or one of several channels.",
        )
        self._labels = named(
            LayerChoice("none yet"),
            "labels",
            "The layer you paint into: 0 is unlabeled, 1 is background, 2 and up are your classes.",
        )
        self._new = button(
            f"New  {NEW_KEY}",
            "new annotation",
            "Make an empty annotation that lies exactly over the image.",
        )
        self._help = button(
            f"?  {HELP_KEY}", "help on keys", "Show all keys of the annotation and what they do."
        )
        self._help.clicked.connect(self.help_wanted)
        self._saved = label(role="muted", name="autosave state")
        self._saved.setToolTip(
            "Strokes are written to a journal on disk while you paint; after a crash they are "
            "offered again. Saving to a file of your own is up to you."
        )
        self._refusal = label(role="warning", name="why this layer cannot be used")
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(SPACING)
        grid.addWidget(label("image"), 0, 0)
        grid.addWidget(self._images, 0, 1)
        grid.addWidget(self._help, 0, 2)
        grid.addWidget(label("labels"), 1, 0)
        grid.addWidget(self._labels, 1, 1)
        grid.addWidget(self._new, 1, 2)
        grid.addWidget(self._saved, 2, 1, 1, 2)
        grid.addWidget(self._refusal, 3, 0, 1, 3)
        grid.setColumnStretch(1, 1)
        self._images.chosen.connect(session.choose_image)
        self._labels.chosen.connect(self._choose_annotation)
        self._new.clicked.connect(self.start_annotation)
        session.changed.layers.connect(self._show)
        session.changed.image.connect(self._show)
        session.changed.annotation.connect(self._show)
        self.show_saved("")
        self._chosen_labels: Layer | None = None
        self._show()

    def show_saved(self, text: str) -> None:
        """Say how the autosave stands."""
        say(self._saved, text)

    def _show(self) -> None:
        session = self._session
        images, labels = session.images(), session.labels()
        names = [session.image_name(layer) for layer in images]
        self._images.show_layers(images, names, session.image)
        if session.annotation is not None or not session.annotation_refusal:
            self._chosen_labels = session.annotation
        self._labels.show_layers(labels, [x.name for x in labels], self._chosen_labels)
        self._new.setEnabled(session.volume is not None)
        set_primary(self._new, session.annotation is None)
        say(self._refusal, session.image_refusal or session.annotation_refusal)

    def _choose_annotation(self, layer: Layer | None) -> None:
        self._chosen_labels = layer
        self._session.choose_annotation(layer)

    def start_annotation(self) -> None:
        """Make an empty annotation, ready to paint, or say why not."""
        try:
            self._session.start_annotation()
        except InputError as error:
            show_warning(str(error))
