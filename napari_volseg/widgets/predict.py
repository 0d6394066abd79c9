"""The third step: predict the whole volume, and save the mask and the model."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QCheckBox, QProgressBar, QWidget

from napari_volseg.review.kept import put_kept
from napari_volseg.widgets.files import (
    LABEL_SUFFIXES,
    MODEL_SUFFIXES,
    ask_what_to_open,
    ask_where_to_save,
    say_saved,
)
from napari_volseg.widgets.jobs import Background, Job
from napari_volseg.widgets.keys import PREDICT_KEY
from napari_volseg.widgets.layers import (
    classes_of,
    note,
    region_on_view,
    visible_slice,
)
from napari_volseg.widgets.parts import (
    DOT,
    button,
    column,
    duration,
    label,
    named,
    row,
    say,
    set_primary,
)
from napari_volseg.widgets.predicting import (
    Prediction,
    RegionUncertainty,
    predict_on,
)
from napari_volseg.widgets.session import Model, Session
from napari_volseg.widgets.uncertainty import UncertaintyOverlay
from napari_volseg.widgets.verdicts import locked_in
from napari_volseg.widgets.work import load_checkpoint, save_checkpoint, save_labels

if TYPE_CHECKING:
    from pathlib import Path

    from napari.layers import Labels

    from napari_volseg.inference.predict import PredictedRegion
    from napari_volseg.models.checkpoint import Checkpoint
    from napari_volseg.widgets.settings import Memory

REFRESH_MS = 200
REFRESH_3D_MS = 1000


def why_not_predict(session: Session) -> str:
    """Return what is missing for a prediction, or "" if nothing is."""
    if session.volume is None:
        return session.image_refusal or "Open a 3D image first."
    if session.model is None:
        return "Train first, or load a model."
    reads, has = session.model.checkpoint.channels, session.volume.channels
    if reads != has:
        return f"The model reads {reads} channels, the image has {has}; choose one like it."
    if session.busy == "training":
        return "A training is running; stop it, or wait until it is done."
    if session.busy == "sorting":
        return "Objects are being sorted; cancel it in Review, or wait until it is done."
    return ""


class PredictStep(QWidget):
    """Predict with progress and [Cancel]; save the mask; save and load models.

    Signals
    -------
    finished()
        A prediction of the whole volume is in the overlay.
    """

    finished = Signal()

    def __init__(self, session: Session, background: Background, memory: Memory) -> None:
        super().__init__()
        self._session = session
        self._background = background
        self._memory = memory
        self.job = Job(self)
        self._fraction: float | None = None
        self._overlay: Labels | None = None
        self._prediction: Prediction | None = None
        self._began, self._began_at = 0.0, 0.0
        self._refusal = ""
        self._build()
        self._refresh = QTimer(self)
        self._refresh.setSingleShot(True)
        self._refresh.timeout.connect(self._refresh_overlay)
        self.job.yielded.connect(self._on_event)
        self.job.refused.connect(self._on_refused)
        self.job.ended.connect(self._on_ended)
        for signal in (session.changed.image, session.changed.model, session.changed.busy):
            signal.connect(self._show_state)
        session.changed.prediction.connect(self._on_overlay_changed)
        self._show_state()

    def _build(self) -> None:
        self._model = label(name="model to predict with")
        self._load = button(
            "Load model\N{HORIZONTAL ELLIPSIS}", "load a model", "Predict with a model from a file."
        )
        self._save_model = button(
            "Save model\N{HORIZONTAL ELLIPSIS}",
            "save the model",
            "Keep the model in one file, to predict with it later or to go on training.",
        )
        self._predict = button(
            f"Predict  {PREDICT_KEY}",
            "predict",
            "Segment the whole volume, beginning with the slice on view; or what is left of it.",
            primary=True,
        )
        self._cancel = button(
            f"Cancel  {PREDICT_KEY}",
            "cancel prediction",
            "Stop here; what is predicted so far stays on view, and Go on does the rest.",
        )
        self._flips = named(
            QCheckBox("flip averaging"),
            "flip averaging",
            "Take the mean over eight mirrored images. It takes eight times as long.",
        )
        self._flips.setChecked(self._memory.get("flips", False))
        self._bar = named(QProgressBar(), "prediction progress", "How much is predicted.")
        self._bar.setRange(0, 100)
        self._reason = label(role="warning", name="why prediction is not possible")
        self._status = label(name="prediction state")
        self._shown = named(
            QCheckBox("show prediction  O"),
            "show prediction",
            "Compare with the image. Key O, while the annotation layer is selected.",
        )
        self._uncertainty = UncertaintyOverlay(self._session, self._memory)
        self._save = button(
            "Save mask\N{HORIZONTAL ELLIPSIS}",
            "save the mask",
            "Write the prediction to a file, with the geometry of the image and its classes.",
        )
        column(
            self,
            [
                row(label("model"), self._model, stretch=1),
                row(self._load, self._save_model),
                row(self._flips),
                row(self._predict, self._cancel, stretch=0),
                self._bar,
                self._reason,
                self._status,
                row(self._shown),
                self._uncertainty,
                row(self._save),
            ],
        )
        self._predict.clicked.connect(self.predict)
        self._cancel.clicked.connect(self.cancel)
        self._save.clicked.connect(self.save_mask)
        self._save_model.clicked.connect(self.save_model)
        self._load.clicked.connect(self.load_model)
        self._flips.toggled.connect(self._show_state)
        self._shown.toggled.connect(self._show_overlay)

    def predict(self) -> None:
        """Start a prediction of the whole volume into the overlay, or go on with one."""
        session = self._session
        volume, model, image = session.volume, session.model, session.image
        if self.job.running or why_not_predict(session) or not (volume and model and image):
            return
        if not self._can_go_on():
            painted = {c.id: c for c in session.painted_classes()}
            classes = [painted.get(c.id, c) for c in model.checkpoint.classes]
            self._overlay = session.start_prediction(classes)
            self._uncertainty.start()
            self._prediction = Prediction(model.checkpoint, volume, self._flips.isChecked())
            self._fraction = 0.0
        if self._overlay is not None:
            self._overlay.visible = True
        self._began, self._began_at = time.monotonic(), self._fraction or 0.0
        self._refusal = ""
        self._memory.set("flips", self._flips.isChecked())
        self.job.start(predict_on, self._prediction, visible_slice(session.viewer, image))
        session.set_busy("predicting")

    def _can_go_on(self) -> bool:
        """Whether what is in the overlay is a part of what is asked for now."""
        done, model = self._prediction, self._session.model
        return (
            done is not None
            and model is not None
            and 0 < (self._fraction or 0) < 1
            and done.volume is self._session.volume
            and done.checkpoint is model.checkpoint
            and done.flips == self._flips.isChecked()
        )

    def predict_or_cancel(self) -> None:
        """Do what the large button does."""
        if self.job.running:
            self.cancel()
        else:
            self.predict()

    def cancel(self) -> None:
        """End the prediction at its next region or pass; what is there stays."""
        from napari_volseg.training.events import Command

        self.job.send(Command.STOP)
        self._cancel.setEnabled(False)
        say(self._status, "Stopping\N{HORIZONTAL ELLIPSIS}")

    def _on_event(self, event: PredictedRegion | RegionUncertainty | Prediction | None) -> None:
        if isinstance(event, Prediction):
            if self._overlay is not None:
                note(self._overlay, doubt=self._uncertainty.values)
            self._session.set_uncertainty(event.uncertainty)
        elif isinstance(event, RegionUncertainty):
            self._uncertainty.show_region(event)
        elif event is not None:
            self._show_region(event)

    def _show_region(self, piece: PredictedRegion) -> None:
        overlay = self._overlay
        if overlay is None:
            return
        labels = piece.labels.copy()
        put_kept(labels, piece.region, locked_in(self._session))
        overlay.data[piece.region] = labels
        self._fraction = piece.done / piece.total
        viewer = self._session.viewer
        if region_on_view(viewer, overlay, piece.region) and not self._refresh.isActive():
            in_3d = viewer.dims.ndisplay == 3
            self._refresh.start(REFRESH_3D_MS if in_3d else REFRESH_MS)
        self._show_progress()

    def _refresh_overlay(self) -> None:
        if self._overlay is not None:
            self._overlay.refresh(extent=False)

    def _on_refused(self, message: str) -> None:
        self._refusal = message

    def _on_ended(self) -> None:
        self._refresh.stop()
        self._refresh_overlay()
        self._session.set_busy("")
        if self._overlay is not None and self._fraction == 1.0:
            self.finished.emit()

    def _on_overlay_changed(self) -> None:
        """Let go of an overlay that was deleted, or that another image has left behind."""
        if self._overlay is not None and self._overlay is not self._session.prediction:
            self._overlay.events.visible.disconnect(self._show_visible)
            self._overlay = self._prediction = None
            self._fraction = None
            self.job.cancel()
        self._overlay = self._session.prediction
        if self._overlay is not None:
            self._overlay.events.visible.connect(self._show_visible)
        self._show_state()

    @property
    def fraction(self) -> float | None:
        """How much of the volume the overlay holds, 0 to 1; None if there is none."""
        return self._fraction

    def _show_state(self) -> None:
        session, running = self._session, self.job.running
        reason = "" if running else why_not_predict(session)
        say(self._reason, reason or self._refusal)
        self._model.setText(describe_model(session.model))
        self._predict.setText(f"{'Go on' if self._can_go_on() else 'Predict'}  {PREDICT_KEY}")
        self._predict.setVisible(not running)
        self._predict.setEnabled(not reason)
        self._cancel.setVisible(running)
        self._cancel.setEnabled(running)
        self._bar.setVisible(running)
        self._load.setEnabled(not running)
        self._flips.setEnabled(not running)
        self._save_model.setEnabled(session.model is not None)
        complete = self._fraction == 1.0 and not running
        self._save.setEnabled(complete)
        set_primary(self._save, complete)
        set_primary(self._predict, not complete)
        self._shown.setEnabled(self._overlay is not None)
        self._show_visible()
        self._show_progress()

    def _show_visible(self, event: Any = None) -> None:
        self._shown.setChecked(self._overlay is not None and self._overlay.visible)

    def _show_overlay(self, visible: bool) -> None:
        if self._overlay is not None:
            self._overlay.visible = visible

    def _show_progress(self) -> None:
        fraction = self._fraction
        if fraction is None:
            say(self._status, "")
        elif self.job.running:
            self._bar.setValue(round(100 * fraction))
            seconds = time.monotonic() - self._began
            gained = fraction - self._began_at
            left = duration(seconds * (1 - fraction) / gained) if gained > 0 else ""
            say(
                self._status,
                f"About {left} left" if left else "Getting ready\N{HORIZONTAL ELLIPSIS}",
            )
        elif fraction == 1.0:
            say(self._status, "The whole volume is predicted.")
        else:
            say(
                self._status,
                f"Only {100 * fraction:.0f}% is predicted; a mask can be saved once all is.",
            )

    def save_mask(self) -> None:
        """Ask for a file and write the prediction there."""
        overlay, done = self._overlay, self._prediction
        if overlay is None or done is None or self._fraction != 1.0:
            return
        volume = done.volume
        path = ask_where_to_save(
            self, self._memory, "Save mask", f"{volume.name}_labels", LABEL_SUFFIXES
        )
        if path is not None:
            classes = classes_of(overlay)
            self._background.run(save_labels, path, overlay.data, volume, classes, done=say_saved)

    def save_model(self) -> None:
        """Ask for a file and write the model there."""
        model = self._session.model
        if model is None:
            return
        path = ask_where_to_save(self, self._memory, "Save model", model.name, MODEL_SUFFIXES)
        if path is not None:
            self._background.run(save_checkpoint, path, model.checkpoint, done=say_saved)

    def load_model(self) -> None:
        """Ask for a model file and predict with it from now on."""
        path = ask_what_to_open(self, self._memory, "Load model", MODEL_SUFFIXES)
        if path is not None:
            self._background.run(load_checkpoint, path, done=partial(self._loaded, path))

    def _loaded(self, path: Path, checkpoint: Checkpoint) -> None:
        self._session.set_model(Model(checkpoint, path.stem))

    def shutdown(self) -> None:
        """End the thread at its next region, and drop what it still brings."""
        self._refresh.stop()
        self._uncertainty.shutdown()
        self.job.shutdown()


def describe_model(model: Model | None) -> str:
    """Return a line about a model: where it comes from, how good it was, how old it is."""
    if model is None:
        return "none yet"
    score = model.checkpoint.score
    parts = [] if score is None else [f"held-out IoU {score:.2f}"]
    parts.append(f"trained {duration(model.checkpoint.seconds)}")
    # A line breaks between these, not before the unit.
    return DOT.join([model.name, *(part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts)])
