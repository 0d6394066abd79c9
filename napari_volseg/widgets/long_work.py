"""A bar that says how far long work is, and cancels it; of what is done at once, nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_warning
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QFrame, QProgressBar, QWidget

from napari_volseg.widgets.jobs import Job
from napari_volseg.widgets.parts import button, column, label, named, row

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

SHOW_AFTER_MS = 300
"""What is done earlier is told by what it did."""


@dataclass(frozen=True, eq=False)
class _Task:
    work: Callable[[], Generator[float, None, Any]]
    done: Callable[[Any], None]
    failed: Callable[[], None]
    refused: Callable[[str], object]


@dataclass(frozen=True)
class _Result:
    value: Any


class ProgressBar(QWidget):
    """A bar, and a button that cancels what it tells of.

    Parameters
    ----------
    work : str
        What it is, for the names of the controls.
    tip : str
        What the bar shows.
    cancel_tip : str
        What to cancel it leaves behind.

    Signals
    -------
    cancelled()
        The user pressed Cancel.
    """

    cancelled = Signal()

    def __init__(self, work: str, tip: str, cancel_tip: str) -> None:
        super().__init__()
        self._bar = named(QProgressBar(), f"progress of {work}", tip)
        cancel = button("Cancel", f"cancel {work}", cancel_tip)
        column(self, [row(self._bar, cancel, stretch=0)])
        cancel.clicked.connect(lambda: self.cancelled.emit())

    def begin(self) -> None:
        """Move without an end until something is known."""
        self._bar.setRange(0, 0)

    def show_fraction(self, fraction: float) -> None:
        """Show how much is done, 0 to 1."""
        self._bar.setRange(0, 100)
        self._bar.setValue(round(100 * fraction))


class LongWork(QFrame):
    """Runs one generator at a time in a thread; the bar is there while it takes long.

    Parameters
    ----------
    work, tip, cancel_tip : str
        As of ``ProgressBar``.
    titled : bool
        Whether it is a strip of its own, with a title.

    Signals
    -------
    cancelled()
        The user pressed Cancel.
    """

    cancelled = Signal()

    def __init__(self, work: str, tip: str, cancel_tip: str, *, titled: bool = False) -> None:
        super().__init__()
        self._job = Job(self)
        # What is wanted, and what the job is at: one that was cancelled takes a while to end.
        self._task: _Task | None = None
        self._started: _Task | None = None
        self._progress = ProgressBar(work, tip, cancel_tip)
        self._title = label(name=f"what {work} is")
        self._title.setVisible(titled)
        layout = column(self, [self._title, self._progress])
        if titled:
            self.setProperty("role", "strip")
            layout.setContentsMargins(8, 6, 8, 6)
        self._wait = QTimer(self)
        self._wait.setSingleShot(True)
        self._wait.timeout.connect(self.show)
        self._progress.cancelled.connect(self.cancel)
        self._progress.cancelled.connect(self.cancelled)
        self._job.yielded.connect(self._on_event)
        self._job.refused.connect(self._on_refused)
        self._job.ended.connect(self._on_ended)
        self.hide()

    @property
    def working(self) -> bool:
        """Whether there is something to cancel."""
        return self._task is not None

    def say(self, title: str) -> None:
        """Say what the work is that is run from now on."""
        self._title.setText(title)

    def run(
        self,
        work: Callable[[], Generator[float, None, Any]],
        *,
        done: Callable[[Any], None],
        failed: Callable[[], None],
        refused: Callable[[str], object] | None = None,
    ) -> None:
        """Run a generator of how much is done, 0 to 1, instead of what is at work.

        Parameters
        ----------
        work : callable ()
            It must not change anything.
        done : callable (result)
            Called with what the generator returns.
        failed : callable ()
            Called if it comes to nothing: it was cancelled, or raised an error, which the
            user is told.
        refused : callable (message), optional
            Tells of an InputError, after that; by default as a warning of napari.
        """
        self._drop()
        self._task = _Task(work, done, failed, refused or show_warning)
        self._progress.begin()
        if self.isHidden():
            self._wait.start(SHOW_AFTER_MS)
        self._start()

    def cancel(self) -> None:
        """Drop what is at work."""
        self._drop()
        self._rest()

    def _drop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            self._job.cancel()
            task.failed()

    def _start(self) -> None:
        if self._task is not None and not self._job.running:
            self._started = self._task
            self._job.start(_telling, self._task.work)

    def _on_event(self, event: float | _Result) -> None:
        if not isinstance(event, _Result):
            self._progress.show_fraction(event)
            return
        task, self._task = self._task, None
        if task is not None:
            task.done(event.value)
        self._rest()

    def _on_refused(self, message: str) -> None:
        task = self._task
        self.cancel()
        if task is not None:
            task.refused(message)

    def _on_ended(self) -> None:
        if self._task is self._started:
            # It ended without a result: an error that is told already.
            self.cancel()
        self._start()

    def _rest(self) -> None:
        """Hide the bar, unless there is more to do already."""
        if self._task is None:
            self._wait.stop()
            self.hide()

    def shutdown(self) -> None:
        """End the thread, and call nobody any more."""
        self._task = None
        self._rest()
        self._job.shutdown()


def _telling(work: Callable[[], Generator[float, None, Any]]) -> Iterator[float | _Result]:
    """Yield the result of a generator too: what is returned, a worker does not hand over."""
    result = yield from work()
    yield _Result(result)
