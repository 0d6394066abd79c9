"""The dock: one widget with four steps, made of small parts that share a session."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtWidgets import QApplication, QFrame, QMainWindow, QScrollArea, QVBoxLayout, QWidget

from napari_volseg.widgets.annotate import AnnotateStep
from napari_volseg.widgets.confidence_strip import ConfidenceStrip
from napari_volseg.widgets.files import LABEL_SUFFIXES, ask_where_to_save, say_saved
from napari_volseg.widgets.header import Header
from napari_volseg.widgets.jobs import Background
from napari_volseg.widgets.journaling import Journaling
from napari_volseg.widgets.keys import (
    ANNOTATE_KEY,
    COMPARE_KEY,
    NEW_KEY,
    PREDICT_KEY,
    REPORT_KEY,
    REVIEW_KEY,
    TRAIN_KEY,
    HelpCard,
    Key,
    LayerKeys,
)
from napari_volseg.widgets.layers import noted
from napari_volseg.widgets.parts import SPACING, column, style_sheet, theme_colors
from napari_volseg.widgets.predict import PredictStep
from napari_volseg.widgets.review import COMPARE, OBJECTS, ReviewStep
from napari_volseg.widgets.samples import SamplePage
from napari_volseg.widgets.scan import PaintScan
from napari_volseg.widgets.session import Session
from napari_volseg.widgets.settings import Memory
from napari_volseg.widgets.steps import StepBar
from napari_volseg.widgets.train import TrainStep
from napari_volseg.widgets.undo import Undo
from napari_volseg.widgets.work import save_labels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari.components import ViewerModel
    from qtpy.QtGui import QHideEvent

WIDTH = 380
ANNOTATE, TRAIN, PREDICT, REVIEW = range(4)
STEPS = (
    ("Annotate", "Paint some slices. The figure: slices painted."),
    ("Train", "Learn from them. The figure: agreement with held-out paint, 1 is perfect."),
    ("Predict", "Segment the whole volume. The figure: how much is predicted."),
    ("Review", "Look at the result, and correct it. The figure: objects reviewed."),
)


class VolSegDock(QWidget):
    """Paint a few slices, train, predict, review: the dock that napari opens.

    Parameters
    ----------
    napari_viewer : napari viewer
        napari fills it in.
    journal : Path, optional
        Folder of the autosave; the user's data folder by default.
    """

    def __init__(self, napari_viewer: ViewerModel, journal: Path | None = None) -> None:
        super().__init__()
        # napari hands plugins a proxy; layers in its events are bare, and would be no
        # match for the proxied ones.
        self._viewer: ViewerModel = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self.closed = False
        self._background = Background(self)
        self._memory = Memory()
        self.session = Session(self._viewer)
        self._scan = PaintScan(self.session, self._background, self)
        self.undo = Undo(self.session, self._background, self)
        self._build(journal)
        self._connect()
        self._show_page()

    def _build(self, journal: Path | None) -> None:
        self.header = Header(self.session)
        self._journaling = Journaling(self.session, self._background, journal)
        self.samples = SamplePage(self._viewer, self._background)
        self._bar = StepBar(STEPS)
        self.annotate = AnnotateStep(self.session, self.undo, self._background, self._memory)
        self.train = TrainStep(self.session, self.undo, self._background, self._memory)
        self.predict = PredictStep(self.session, self._background, self._memory)
        self.review = ReviewStep(self.session, self._background, self._memory, self.undo)
        self._pages: tuple[QWidget, ...] = (
            self.annotate,
            self.train,
            self.predict,
            self.review,
        )
        self._step = ANNOTATE
        others = (*self.annotate.keys(), *self.review.objects.queue.keys())
        self._help = HelpCard((*self.keys(), *others))
        self._bound = LayerKeys(self.keys())
        self._bound_on_images = LayerKeys([self._new_key()])
        self._help.hide()
        content = QWidget()
        layout = column(content, [self._help, self.samples, *self._pages])
        layout.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidget(content)
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(SPACING, SPACING, SPACING, SPACING)
        outer.setSpacing(SPACING)
        for widget in (self.header, self._journaling, self._bar):
            outer.addWidget(widget)
        outer.addWidget(scroll, 1)
        # At the bottom of the dock it is beside napari's slider, whatever the step.
        self.strip = ConfidenceStrip(self.session)
        outer.addWidget(self.strip)

    def _connect(self) -> None:
        changed = self.session.changed
        for signal in (changed.image, changed.busy):
            signal.connect(self._show_page)
        for signal in (changed.annotation, changed.prediction):
            signal.connect(self._bind)
        self._bind()
        for signal in (changed.image, changed.layers):
            signal.connect(self._bind_images)
        self._bind_images()
        for signal in (changed.painted, changed.model, changed.prediction):
            signal.connect(self._show_figures)
        self._journaling.state.connect(self.header.show_saved)
        self.undo.changed.connect(self._journaling.keep)
        self._bar.picked.connect(self.go_to)
        self.annotate.save_wanted.connect(self.save_annotation)
        self.annotate.wanted.connect(partial(self.go_to, ANNOTATE))
        for wish in (self.annotate.help_wanted, self.header.help_wanted, self._help.closed):
            wish.connect(self._toggle_help)
        self.predict.job.yielded.connect(self._show_figures)
        self.predict.finished.connect(self.review.count_prediction)
        for act in (self._show_figures, self._journaling.keep_review):
            self.review.objects.queue.reviewed.connect(act)
        self._viewer.events.theme.connect(self._on_theme)
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self.shutdown)

    def sizeHint(self) -> QSize:
        """Ask for a width that shows everything."""
        return QSize(WIDTH, 640)

    def go_to(self, step: int) -> None:
        """Show one of the four steps."""
        self._step = step
        self._help.hide()
        self._show_page()

    def keys(self) -> tuple[Key, ...]:
        """Return what is bound on the annotation and on the prediction, whatever the step."""
        return (
            self._new_key(),
            Key(ANNOTATE_KEY, "annotate", partial(self.go_to, ANNOTATE)),
            Key(
                TRAIN_KEY,
                "train; there: train, or stop",
                partial(self._go_or_do, TRAIN, self.train.train_or_stop),
            ),
            Key(
                PREDICT_KEY,
                "predict; there: predict, or cancel",
                partial(self._go_or_do, PREDICT, self.predict.predict_or_cancel),
            ),
            Key(
                REVIEW_KEY,
                "review; there: find the objects",
                partial(self._go_or_do, REVIEW, self._find_objects),
            ),
            Key(COMPARE_KEY, "compare two masks", self._compare),
            *self.review.compare.differences.keys(),
            Key(REPORT_KEY, "save the comparison", self.review.compare.save_report),
        )

    def _new_key(self) -> Key:
        return Key(NEW_KEY, "new annotation", self.header.start_annotation)

    def _bind(self) -> None:
        self._bound.bind(self.session.annotation, self.session.prediction)

    def _bind_images(self) -> None:
        """Bind the one key that is needed before there is an annotation."""
        image, volume = self.session.image, self.session.volume
        channels = [
            layer
            for layer in self._viewer.layers
            if layer is image or (isinstance(layer, Image) and noted(layer).get("volume") is volume)
        ]
        self._bound_on_images.bind(*(channels if volume is not None else ()))

    def _go_or_do(self, step: int, act: Callable[[], None]) -> None:
        if self._step == step:
            act()
        else:
            self.go_to(step)

    def _find_objects(self) -> None:
        self.review.show_part(OBJECTS)
        self.review.objects.find()

    def _compare(self) -> None:
        self.go_to(REVIEW)
        self.review.show_part(COMPARE)
        self.review.compare.compare()

    def _toggle_help(self) -> None:
        self._help.setVisible(self._help.isHidden())
        self._show_page()

    def _show_page(self) -> None:
        # Whoever took the image away can still stop what is at work.
        empty = self.session.image is None and not self.session.busy
        helping = not self._help.isHidden()
        self.samples.setVisible(empty and not helping)
        self._bar.setVisible(not empty)
        self._bar.show_step(self._step)
        for at, page in enumerate(self._pages):
            page.setVisible(not empty and not helping and at == self._step)
        self._show_figures()

    def _show_figures(self, event: object = None) -> None:
        slices = len(self.session.painted.slices)
        self._bar.show_figure(ANNOTATE, f"{slices} slice{'s' * (slices != 1)}")
        model = self.session.model
        score = None if model is None else model.checkpoint.score
        figure = "" if score is None else f"IoU {score:.2f}"
        if self.session.busy == "training":
            figure = figure or "training"
        self._bar.show_figure(TRAIN, figure)
        fraction = self.predict.fraction
        self._bar.show_figure(PREDICT, "" if fraction is None else f"{100 * fraction:.0f}%")
        self._bar.show_figure(REVIEW, self.review.objects.queue.figure)

    def save_annotation(self) -> None:
        """Ask for a file and write the annotation there."""
        layer, volume = self.session.annotation, self.session.volume
        if layer is None or volume is None:
            return
        path = ask_where_to_save(
            self, self._memory, "Save labels", f"{volume.name}_annotation", LABEL_SUFFIXES
        )
        if path is None:
            return
        labels = layer.data.copy()

        def saved(path: Path) -> None:
            self._journaling.mark_saved(layer, labels)
            say_saved(path)

        self._background.run(save_labels, path, labels, volume, self.session.classes, done=saved)

    def _on_theme(self, event: Any = None) -> None:
        colors = theme_colors(self._viewer.theme)
        self.setStyleSheet(style_sheet(self._viewer.theme))
        self.train.set_colors(colors["background"], colors["text"])
        self.strip.set_colors(colors)

    def shutdown(self) -> None:
        """Stop all work, write what is painted, let go of the viewer; the dock is done."""
        if self.closed:
            return
        self.closed = True
        self._viewer.events.theme.disconnect(self._on_theme)
        self.train.shutdown()
        self.predict.shutdown()
        self.review.shutdown()
        self.annotate.stop()
        self.strip.stop()
        self._bound.bind()
        self._bound_on_images.bind()
        self._scan.stop()
        self.undo.stop()
        self.session.close()
        self._background.shutdown()
        self._journaling.stop()

    # napari closes a dock by taking its widget out (no closeEvent), and a window with its
    # docks still in it, which then only hides them.

    def event(self, event: QEvent | None) -> bool:
        """Take the theme's colors before the first show; notice being taken out of a dock."""
        kind = None if event is None else event.type()
        # Not earlier: with a style sheet, all is styled anew for each window it is put into.
        if kind == QEvent.Type.Polish:
            self._on_theme()
        elif kind == QEvent.Type.ParentChange:
            QTimer.singleShot(0, self._close_if_taken_out)
        return bool(super().event(event))

    def _close_if_taken_out(self) -> None:
        if self.parent() is None and not self.closed:
            self.shutdown()
            self.deleteLater()

    def hideEvent(self, event: QHideEvent | None) -> None:
        """Notice that napari's window closed."""
        super().hideEvent(event)
        window = self.window()
        if isinstance(window, QMainWindow) and not window.isVisible():
            self.shutdown()
