"""The second step: train on what is painted, and see how well it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QWidget

from napari_volseg.data.errors import InputError
from napari_volseg.widgets.forecast import Asked, Forecast
from napari_volseg.widgets.jobs import Job
from napari_volseg.widgets.keys import TRAIN_KEY
from napari_volseg.widgets.live_paint import LivePaint
from napari_volseg.widgets.parts import DOT, button, column, count, duration, label, named, row, say
from napari_volseg.widgets.plot import TrainingPlot
from napari_volseg.widgets.preview import LivePreview
from napari_volseg.widgets.session import Model
from napari_volseg.widgets.training_settings import TrainingSettings
from napari_volseg.widgets.work import train_on

if TYPE_CHECKING:
    from napari_volseg.models.checkpoint import Checkpoint
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.training.events import Progress, Score
    from napari_volseg.widgets.jobs import Background
    from napari_volseg.widgets.session import Session
    from napari_volseg.widgets.settings import Memory
    from napari_volseg.widgets.undo import Undo

REDRAW_MS = 2000
"""Between updates of curves and figures: where OpenGL is software, each holds up the window
for a frame."""


def why_not_train(session: Session) -> str:
    """Return what is missing for a training, or "" if nothing is."""
    if session.volume is None:
        return session.image_refusal or "Open a 3D image first."
    if session.annotation is None:
        return session.annotation_refusal or "Press New to make an annotation, then paint a slice."
    if len(session.painted_classes()) < 2:
        return (
            "Paint at least two classes. Marking a slice complete makes the rest of it background."
        )
    if session.busy == "predicting":
        return "A prediction is running; cancel it, or wait until it is done."
    if session.busy == "sorting":
        return "Objects are being sorted; cancel it in Review, or wait until it is done."
    return ""


class TrainStep(QWidget):
    """Train, pause, stop; curves, speed, time left, device and memory."""

    def __init__(
        self, session: Session, undo: Undo, background: Background, memory: Memory
    ) -> None:
        super().__init__()
        self._session = session
        self.job = Job(self)
        self._losses: list[tuple[float, float]] = []
        self._scores: dict[int, list[tuple[float, float]]] = {}
        self._last: Progress | None = None
        self._score: Score | None = None
        self._name = ""
        self._refusal = ""
        self._note = ""
        self._stopping = self._patient = False
        self._afresh = named(
            QCheckBox("start afresh"),
            "start afresh",
            "Forget the current model. Otherwise training goes on from it, with what is "
            "painted now, which is much faster after a correction.",
        )
        self._settings = TrainingSettings(background, memory, self._afresh)
        self._forecast = Forecast(background, self._to_foresee)
        self._preview = LivePreview(session, memory, self.job.send)
        self._paint = LivePaint(undo, memory, self.job.send)
        self._build()
        self._redraw = QTimer(self)
        self._redraw.setInterval(REDRAW_MS)
        self._redraw.timeout.connect(self._show_progress)
        self.job.yielded.connect(self._on_progress)
        self.job.refused.connect(self._on_refused)
        self.job.ended.connect(self._on_ended)
        changed = session.changed
        for signal in (changed.image, changed.annotation, changed.painted, changed.model):
            signal.connect(self._show_state)
        changed.busy.connect(self._show_state)
        self._show_state()

    def _build(self) -> None:
        self._train = button(
            f"Train  {TRAIN_KEY}", "train", "Train on what is painted.", primary=True
        )
        self._pause = button(
            "Pause", "pause training", "Hold the training, to have the machine for something else."
        )
        self._stop = button(
            f"Stop  {TRAIN_KEY}",
            "stop training",
            "End now and keep the best model so far. The last seconds of the default network, in "
            "which it looks again at what it found, are left out.",
        )
        self._reason = label(role="warning", name="why training is not possible")
        self._status = label(name="training progress")
        self._machine = label(role="muted", name="device, memory and speed")
        self._plot = TrainingPlot()
        for empty in (self._status, self._machine, self._plot):
            empty.hide()
        column(
            self,
            [
                self._settings,
                row(self._train, self._pause, self._stop, stretch=0),
                self._forecast,
                row(self._paint.box, self._preview.box),
                self._paint,
                self._preview,
                self._reason,
                self._status,
                self._machine,
                self._plot,
            ],
        )
        self._settings.changed.connect(self._forecast.refresh)
        self._afresh.toggled.connect(self._forecast.refresh)
        self._train.clicked.connect(self.train)
        self._pause.clicked.connect(self._toggle_pause)
        self._stop.clicked.connect(self.stop)

    def set_colors(self, background: str, text: str) -> None:
        """Take the colors of napari's theme."""
        self._plot.set_colors(background, text)

    def train(self) -> None:
        """Start a training on a copy of what is painted now."""
        session = self._session
        volume, annotation = session.volume, session.annotation
        if self.job.running or why_not_train(session) or volume is None or annotation is None:
            return
        try:
            config = self._settings.config()
        except InputError as error:
            self._refusal = str(error)
            self._show_state()
            return
        self._settings.remember(config)
        self._losses, self._scores, self._last, self._score = [], {}, None, None
        self._name, self._refusal, self._note, self._stopping = volume.name, "", "", False
        self._patient = config.until_no_better
        self._plot.clear()
        self._plot.show()
        self._preview.start()
        self._paint.start(annotation)
        resume = self._model_to_go_on_from(config, volume.channels)
        labels, proposals = annotation.data.copy(), session.proposals
        if proposals is not None:
            proposals = proposals.copy()
        self.job.start(train_on, volume, labels, session.classes, config, resume, proposals)
        self._redraw.start()
        say(self._status, "Getting ready\N{HORIZONTAL ELLIPSIS}")
        say(self._machine, "")
        session.set_busy("training")

    def _model_to_go_on_from(self, config: TrainingConfig, channels: int) -> Checkpoint | None:
        model = self._session.model
        if model is None or self._afresh.isChecked():
            return None
        fits = model.checkpoint.model == config.model and model.checkpoint.channels == channels
        return model.checkpoint if fits else None

    def _to_foresee(self) -> Asked | None:
        volume = self._session.volume
        if self.job.running or volume is None or why_not_train(self._session):
            return None
        try:
            config = self._settings.config()
        except InputError:
            return None
        resume = self._model_to_go_on_from(config, volume.channels)
        return Asked(volume, len(self._session.painted_classes()), config, resume)

    def stop(self) -> None:
        """End the training; its last event brings the model."""
        if self.job.heard:
            from napari_volseg.training.events import Command

            self.job.send(Command.STOP, first=True)
            self.job.resume()
        else:
            self.job.cancel()
        self._stopping = True
        say(self._status, "Stopping\N{HORIZONTAL ELLIPSIS}")
        self._show_state()

    def train_or_stop(self) -> None:
        """Do what the large button does."""
        if self.job.running:
            self.stop()
        else:
            self.train()

    def _toggle_pause(self) -> None:
        if self.job.paused:
            self.job.resume()
        else:
            self.job.pause()
        self._show_state()
        self._show_progress()

    def _on_progress(self, progress: Progress) -> None:
        self._last = progress
        if progress.note and progress.labels is None:
            self._note = progress.note
        self._paint.hear(progress)
        if not self._stopping:
            self._preview.hear(progress)
        minutes = progress.seconds / 60
        if progress.loss is not None:
            self._losses.append((minutes, progress.loss))
        if progress.checkpoint is None:
            return
        if progress.score is not None:
            self._score = progress.score
            classes = progress.checkpoint.classes
            for label_class, iou in zip(classes, progress.score.iou, strict=True):
                if iou is not None:
                    self._scores.setdefault(label_class.id, []).append((minutes, iou))
        self._session.set_model(Model(progress.checkpoint, self._name))

    def _on_refused(self, message: str) -> None:
        self._refusal = message

    def _on_ended(self) -> None:
        self._redraw.stop()
        self._paint.end()
        self._session.set_busy("")
        self._show_progress()
        last = self._last
        if last is None or last.checkpoint is None:
            say(self._status, "" if self._refusal else "No model was made.")
            return
        score = last.checkpoint.score
        settled = ", which no longer improved" if last.settled else ""
        found = "" if score is None else f" Held-out IoU {score:.2f}{settled}."
        voxels = count(sum(last.checkpoint.progress.get("counts", ())))
        trained = f"Trained for {duration(last.seconds)} on {voxels} painted voxels."
        say(self._status, f"{trained}{found} Next: Predict.")

    def _show_state(self) -> None:
        running = self.job.running
        reason = "" if running else why_not_train(self._session)
        self._train.setVisible(not running)
        self._train.setEnabled(not reason)
        self._pause.setVisible(running)
        self._stop.setVisible(running)
        self._stop.setEnabled(not self._stopping)
        self._pause.setEnabled(not self._stopping)
        self._pause.setText("Resume" if self.job.paused else "Pause")
        self._afresh.setVisible(self._session.model is not None and not running)
        self._forecast.setVisible(not running)
        self._forecast.refresh()
        say(self._reason, reason or self._refusal)

    def _show_progress(self) -> None:
        last = self._last
        if last is None:
            return
        if self.job.paused:
            say(self._status, "Paused.")
        elif self.job.running and not self._stopping:
            about = "At most" if self._patient and not last.settled else "About"
            over = last.fraction == 1
            parts = ["Almost done" if over else f"{about} {duration(last.seconds_left)} left"]
            if last.loss is None:
                parts.insert(0, "Looking at what is painted")
            if self._score is not None:
                settled = ", which no longer improves" if last.settled else ""
                parts.append(f"held-out IoU {self._score.mean_foreground_iou:.2f}{settled}")
            say(self._status, DOT.join(parts))
        parts = [last.device, f"{last.memory_bytes / 1e9:.1f} GB"]
        if last.step:
            parts.append(f"{last.steps_per_second:.1f} steps/s")
        if self._note:
            parts.append(self._note)
        say(self._machine, DOT.join(parts))
        model = self._session.model
        classes = model.checkpoint.classes if model is not None else ()
        self._plot.show_curves(self._losses, self._scores, classes)

    def shutdown(self) -> None:
        """End the thread at its next step, and drop what it still says."""
        self._redraw.stop()
        self._forecast.shutdown()
        self._preview.shutdown()
        self._paint.shutdown()
        self.job.shutdown()
