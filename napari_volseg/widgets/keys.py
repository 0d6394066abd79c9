"""Keys with what they do: bound on our layers, and listed in the help card."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from napari.settings import get_settings
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QGridLayout

from napari_volseg.widgets.parts import SPACING, button, label, row
from napari_volseg.widgets.undo_buttons import REDO_KEY, UNDO_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari.layers import Layer

HELP_KEY = "H"
"""Not "?": napari takes all signs that need Shift for one and the same key."""

ANNOTATE_KEY, TRAIN_KEY, PREDICT_KEY, REVIEW_KEY = "Shift+A", "Shift+T", "Shift+P", "Shift+R"
"""Of the four steps: the first press goes there, the second does what the step is for."""

NEW_KEY, CLASS_KEY = "Shift+N", "Shift+M"

ACCEPT_KEY, REJECT_KEY, FIX_KEY = "A", "R", "W"
"""Of the object in review."""

COMPARE_KEY, REPORT_KEY = "Shift+C", "Shift+E"

NAPARIS = {
    "napari:activate_labels_paint_mode": "brush",
    "napari:activate_labels_erase_mode": "eraser",
    "napari:activate_labels_fill_mode": "bucket: fill what is alike",
    "napari:activate_labels_pan_zoom_mode": "move and zoom",
    "napari:decrease_brush_size": "smaller brush",
    "napari:increase_brush_size": "larger brush",
    "napari:increment_dims_left": "previous slice",
    "napari:increment_dims_right": "next slice",
}
"""What the help card says of napari's own shortcuts, which the user may have changed."""


@dataclass(frozen=True)
class Key:
    """A key of our layers.

    Attributes
    ----------
    key : str
        As Qt writes it, as "Ctrl+1".
    does : str
        What it does, in a few words. Neighbors with the same words are listed as one.
    act : callable ()
        Does it.
    """

    key: str
    does: str
    act: Callable[[], object]


class LayerKeys:
    """Keys that are bound on some layers only, so that none of napari's own are taken."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = tuple(keys)
        self._layers: list[Layer] = []

    def bind(self, *layers: Layer | None) -> None:
        """Bind them on these layers, and on no others any more."""
        for layer in self._layers:
            for key in self._keys:
                layer.bind_key(_napari_key(key.key), None)
        self._layers = [layer for layer in layers if layer is not None]
        for layer in self._layers:
            for key in self._keys:
                layer.bind_key(_napari_key(key.key), _called_with_layer(key.act), overwrite=True)


def _napari_key(key: str) -> str:
    return key.replace("Ctrl+", "Control-").replace("Shift+", "Shift-")


def _called_with_layer(act: Callable[[], object]) -> Callable[[Layer], None]:
    # napari asks what is bound for its name, which a partial does not have.
    def call(layer: Layer) -> None:
        act()

    return call


class HelpCard(QFrame):
    """All keys that work while the annotation layer is selected, and what they do.

    Signals
    -------
    closed()
        The user has read it.
    """

    closed = Signal()

    def __init__(self, keys: Iterable[Key]) -> None:
        super().__init__()
        self.setAccessibleName("keys")
        self.setProperty("role", "card")
        close = button(f"Close  {HELP_KEY}", "close the keys", "Back to the work.")
        close.clicked.connect(self.closed)
        grid = QGridLayout(self)
        grid.setContentsMargins(SPACING, SPACING, SPACING, SPACING)
        grid.setHorizontalSpacing(SPACING)
        grid.setColumnStretch(1, 1)
        title = label("Keys of the annotation layer", role="title")
        grid.addLayout(row(title, close, stretch=0), 0, 0, 1, 2)
        listed = [*lines(keys), ("napari's own", ""), *naparis_lines()]
        for at, (key, does) in enumerate(listed, start=1):
            for side, text in enumerate((key, does)):
                shown = label(text, role="" if does else "title")
                # One line each: labels that wrap ask for more height than they need.
                shown.setWordWrap(False)
                grid.addWidget(shown, at, side, 1, side + 1)


def lines(keys: Iterable[Key]) -> list[tuple[str, str]]:
    """Return (key, what it does); neighbors that do the same are one line."""
    found = []
    for does, same in groupby(keys, key=lambda key: key.does):
        first, *others = (key.key for key in same)
        found.append((f"{first} to {others[-1]}" if others else first, does))
    return found


def naparis_lines() -> list[tuple[str, str]]:
    """Return (keys, what they do) of napari's own shortcuts, as they are set now."""
    shortcuts = get_settings().shortcuts.shortcuts
    undo = [(UNDO_KEY, "undo what was done last"), (REDO_KEY, "redo what was undone")]
    return undo + [
        (" or ".join(str(key) for key in shortcuts[action]), does)
        for action, does in NAPARIS.items()
        if shortcuts.get(action)
    ]
