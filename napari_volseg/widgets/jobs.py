"""Work in the background, and its results back in the GUI thread.

``Job`` runs a long generator as napari's worker, so that napari's own close dialog knows
of it; ``Background`` runs short functions. Neither ever hands over a late result: not of
an earlier run, not after a cancel, not after ``shutdown``.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.qt.threading import GeneratorWorker, create_worker
from napari.utils.notifications import show_warning
from qtpy.QtCore import QObject, Signal

from napari_volseg.data.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator


@dataclass(frozen=True)
class _Refusal:
    """An InputError on its way to the GUI thread: the user's to mend, so no traceback."""

    message: str


def training_or_prediction(
    function: Callable[..., Any], args: tuple[Any, ...], inbox: deque[Any]
) -> Generator[Any, None, None]:
    """Run the generator; napari's close dialog shows this function's name.

    Sent into it is what is in the inbox, one thing at each yield. (A worker's own ``send``
    has room for one thing only, and the next one takes its place.)
    """
    work = function(*args)
    try:
        event = next(work)
        while True:
            yield event
            event = work.send(inbox.popleft()) if inbox else next(work)
    except StopIteration:
        return
    except InputError as error:
        yield _Refusal(str(error))


class _Worker(GeneratorWorker):  # type: ignore[misc]
    """A worker of which every end is heard, and that leaves the process's warnings alone.

    superqt's takes a RuntimeError, which is what torch raises, for the end of the window and
    never tells that it is done. It also replaces the warning filters of all threads while it
    works, and puts them back into the middle of what another thread does with them (napari
    silences a warning whenever it makes a labels layer).
    """

    def run(self) -> None:
        """Do the work and tell how it went; Qt calls this in the thread."""
        with suppress(RuntimeError):  # Qt deleted the signals: the window is gone
            self.started.emit()
            self._running = True
            try:
                result = self.work()
                if isinstance(result, Exception):
                    raise result
            except Exception as error:
                self.errored.emit(error)
            self._running = False
            self.finished.emit()
            self._finished.emit(self)


class Job(QObject):
    """One long generator at a time, in a thread of its own.

    Signals
    -------
    yielded(object)
        An event of the generator.
    refused(str)
        It raised InputError with this message, and ended.
    ended()
        The thread is done, however it came to that.
    """

    yielded = Signal(object)
    refused = Signal(str)
    ended = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._run = 0
        self._worker: GeneratorWorker | None = None
        self._heard = False
        self._inbox: deque[Any] = deque()
        self._pause_wanted = False

    @property
    def running(self) -> bool:
        """Whether a thread is at work, also one that was cancelled but is not done yet."""
        return self._worker is not None

    @property
    def heard(self) -> bool:
        """Whether this run has yielded yet."""
        return self._heard

    @property
    def paused(self) -> bool:
        """Whether a pause was asked for; the running step is finished first."""
        return self._pause_wanted

    def start(self, function: Callable[..., Iterator[Any]], *args: Any) -> None:
        """Run ``function(*args)``, a generator, in a thread.

        Raises
        ------
        RuntimeError
            If the job runs already.
        """
        if self._worker is not None:
            raise RuntimeError("this job runs already")
        self._run += 1
        self._heard, self._inbox, self._pause_wanted = False, deque(), False
        worker = create_worker(
            training_or_prediction,
            function,
            args,
            self._inbox,
            _start_thread=False,
            _worker_class=_Worker,
        )
        worker.yielded.connect(partial(self._on_yielded, self._run))
        worker.paused.connect(partial(self._on_paused, worker))
        worker.finished.connect(partial(self._on_finished, worker))
        self._worker = worker
        worker.start()

    def send(self, value: Any, *, first: bool = False) -> None:
        """Send a value into the generator: one at each yield, in order, or this one first."""
        if first:
            self._inbox.appendleft(value)
        else:
            self._inbox.append(value)

    def pause(self) -> None:
        """Hold the generator after its next yield."""
        if self._worker is not None:
            self._pause_wanted = True
            self._worker.pause()

    def resume(self) -> None:
        """Let a held generator go on."""
        if self._worker is not None and self._pause_wanted:
            self._pause_wanted = False
            self._worker.resume()

    def cancel(self) -> None:
        """Drop all that is still to come; the thread ends at its next yield."""
        if self._worker is not None:
            self._run += 1
            self._worker.quit()

    def _on_yielded(self, run: int, event: Any) -> None:
        if run != self._run:
            return
        self._heard = True
        if isinstance(event, _Refusal):
            self.refused.emit(event.message)
        else:
            self.yielded.emit(event)

    def _on_paused(self, worker: GeneratorWorker) -> None:
        # The worker ignores a resume that comes before the pause has taken effect.
        if not self._pause_wanted:
            worker.resume()

    def _on_finished(self, worker: GeneratorWorker) -> None:
        if worker is self._worker:
            self._worker = None
            self._pause_wanted = False
            self.ended.emit()

    def shutdown(self) -> None:
        """Cancel, and never signal again."""
        self.cancel()
        self._worker = None


class Background(QObject):
    """Short functions in a few threads; what they return is delivered in the GUI thread."""

    _delivery = Signal(object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="napari-volseg")
        self._closed = False
        self._delivery.connect(self._deliver)

    def run(
        self,
        function: Callable[..., Any],
        *args: Any,
        done: Callable[[Any], None],
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """Call ``function(*args)`` in a thread, then ``done(result)`` in the GUI thread.

        An error that the user can mend becomes a notification; any error calls ``failed``.
        """

        def hand_over(future: Future[Any]) -> None:
            if not self._closed:
                self._delivery.emit(future, (done, failed))

        self._threads.submit(function, *args).add_done_callback(hand_over)

    def _deliver(
        self, future: Future[Any], calls: tuple[Callable[[Any], None], Callable[[], None]]
    ) -> None:
        if self._closed:
            return
        done, failed = calls
        error = future.exception()
        if error is None:
            done(future.result())
            return
        failed()
        if not isinstance(error, (InputError, OSError)):
            raise error
        show_warning(str(error))

    def shutdown(self) -> None:
        """Deliver nothing more; what runs (a file being written) is finished."""
        self._closed = True
        self._threads.shutdown(wait=False)
