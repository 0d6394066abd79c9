"""Small parts that all steps of the dock are made of, and their look in napari's themes."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from napari.utils.theme import get_theme
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QSizePolicy,
    QTableWidget,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

W = TypeVar("W", bound=QWidget)

SPACING = 6
PRIMARY_HEIGHT = 32
ROW_SPACING = 6
DOT = " \N{MIDDLE DOT} "


def named(widget: W, name: str, tip: str) -> W:
    """Give a control its accessible name and a tooltip that says why."""
    widget.setAccessibleName(name)
    widget.setToolTip(tip)
    return widget


def button(text: str, name: str, tip: str, *, primary: bool = False) -> QPushButton:
    """Make a push button; the primary one is the next thing to do."""
    made = named(QPushButton(text), name, tip)
    made.setProperty("primary", primary)
    if primary:
        made.setMinimumHeight(PRIMARY_HEIGHT)
    return made


def set_primary(control: QPushButton, primary: bool) -> None:
    """Make a button the next thing to do, or no longer."""
    set_look(control, "primary", primary)


def set_look(widget: QWidget, name: str, value: object) -> None:
    """Set a property that the style sheet looks at, such as a label's role."""
    if widget.property(name) != value:
        widget.setProperty(name, value)
        # Qt looks at properties only when a widget is polished.
        style = widget.style()
        if style is not None:
            style.unpolish(widget)
            style.polish(widget)


def on_click(control: QAbstractButton, act: Callable[..., object], *args: object) -> None:
    """Call ``act(*args)`` when a button is clicked, without the signal's own argument."""
    control.clicked.connect(lambda: act(*args))


def label(text: str = "", role: str = "", *, name: str = "") -> QLabel:
    """Make a label that wraps; its role is "", "title", "muted", "hint" or "warning"."""
    made = QLabel(text)
    made.setWordWrap(True)
    made.setProperty("role", role)
    made.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    if name:
        made.setAccessibleName(name)
    return made


def say(where: QLabel, text: str) -> None:
    """Set a label's text, and hide it when there is nothing to say."""
    where.setText(text)
    where.setVisible(bool(text))


def row(*widgets: QWidget, stretch: int | None = None) -> QHBoxLayout:
    """Lay widgets in a row; the one at ``stretch`` takes the room that is left."""
    layout = QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(SPACING)
    for index, widget in enumerate(widgets):
        layout.addWidget(widget, 1 if index == stretch else 0)
    if stretch is None:
        layout.addStretch(1)
    return layout


def column(parent: QWidget, items: Sequence[QWidget | QHBoxLayout]) -> QVBoxLayout:
    """Lay widgets and rows below each other, as the layout of ``parent``."""
    layout = QVBoxLayout(parent)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(SPACING)
    for item in items:
        if isinstance(item, QWidget):
            layout.addWidget(item)
        else:
            layout.addLayout(item)
    return layout


def table(columns: Sequence[str], stretch: int, name: str, tip: str) -> QTableWidget:
    """Make an empty table to read; the column at ``stretch`` takes the room that is left."""
    made = named(QTableWidget(0, len(columns)), name, tip)
    made.setHorizontalHeaderLabels(columns)
    made.verticalHeader().hide()
    made.verticalHeader().setDefaultSectionSize(made.fontMetrics().height() + ROW_SPACING)
    made.setWordWrap(False)
    header = made.horizontalHeader()
    header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    header.setSectionResizeMode(stretch, QHeaderView.ResizeMode.Stretch)
    made.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
    return made


def short_table(columns: Sequence[str], name: str, tip: str) -> QTableWidget:
    """Make a table that is as high as its few rows; the first column takes the room left."""
    made = table(columns, 0, name, tip)
    made.setSizeAdjustPolicy(QTableWidget.SizeAdjustPolicy.AdjustToContents)
    made.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Maximum)
    return made


def discard(widget: QWidget) -> None:
    """Take a widget out of its parent and delete it once Qt has no more to do with it."""
    widget.hide()
    widget.setParent(None)
    widget.deleteLater()


def narrow(widget: W) -> W:
    """Let a widget shrink with the dock instead of widening it."""
    policy = widget.sizePolicy()
    policy.setHorizontalPolicy(QSizePolicy.Policy.Ignored)
    widget.setSizePolicy(policy)
    return widget


def theme_colors(theme_id: str) -> dict[str, str]:
    """Return the theme's colors that we draw with, as ``#rrggbb``."""
    theme = get_theme(theme_id)
    names = ("background", "foreground", "primary", "highlight", "current", "text", "warning")
    return {name: getattr(theme, name).as_hex("long") for name in names}


def style_sheet(theme_id: str) -> str:
    """Return what our parts add to napari's own style."""
    c = theme_colors(theme_id)
    return f"""
    QPushButton {{ padding: 4px 8px; }}
    QPushButton:focus {{ border: 1px solid {c["text"]}; }}
    QPushButton[primary="true"]:enabled {{
        background-color: {c["current"]}; font-weight: bold; }}
    QPushButton[primary="true"]:enabled:hover {{ background-color: {c["highlight"]}; }}
    QPushButton[slice="true"] {{ padding: 2px 5px; }}
    QToolButton[slice="true"] {{
        background-color: {c["foreground"]}; border: 1px solid transparent; }}
    QToolButton[slice="true"]:hover {{ background-color: {c["primary"]}; }}
    QToolButton[slice="true"]:focus {{ border: 1px solid {c["text"]}; }}
    QLabel[role="title"] {{ font-weight: bold; }}
    QLabel[role="muted"] {{ color: {_mixed(c["text"], c["background"], 0.72)}; }}
    QLabel[role="warning"] {{
        border-left: 3px solid {c["warning"]}; padding-left: 6px; }}
    QLabel[role="hint"] {{ border-left: 3px solid {c["current"]}; padding-left: 6px; }}
    QFrame[role="card"] {{ background-color: {c["foreground"]}; }}
    QFrame[role="strip"] {{
        background-color: {c["foreground"]}; border-left: 3px solid {c["warning"]}; }}
    """


def _mixed(color: str, other: str, share: float) -> str:
    pairs = [(int(color[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in pairs)


def count(number: int) -> str:
    """Write a count with separators that fit any locale, as "48 210"."""
    return f"{number:,}".replace(",", "\N{THIN SPACE}")


def duration(seconds: float) -> str:
    """Write a duration as a person says it: "40 s", "3 min", "1 h 20 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
