"""A thread that keeps labels in their journals while someone else paints them."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_volseg.data.history import History
from napari_volseg.data.journal import Journal, open_journal
from napari_volseg.data.review_state import ReviewState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_volseg.data.journal_log import JournalHeader

SHORTEST_PAUSE_SECONDS = 0.4
LONGEST_PAUSE_SECONDS = 1.2
SHARE_OF_A_CORE = 0.1
SECONDS_WITHOUT_NOTE = 2.5
NAP_SECONDS = 0.5
STOP_SECONDS = 10.0

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Journaled:
    """Labels to keep; the painting thread sets the first six fields, each in one go.

    Attributes
    ----------
    content : (labels, JournalHeader)
        The array that is painted, and what it is. Another shape or dtype than before
        starts another journal, and the earlier one stays on offer.
    as_in_file : bool
        Whether a named file holds the labels as they are; False once they are edited.
    in_file : labels or None
        A copy of labels that were written to a named file since the last look.
    history : History
        What can be undone and redone.
    review : ReviewState
        What was said of objects.
    is_over : bool
        True ends the journal with the next look.
    journal : Journal or None
        The writer's own.
    """

    content: tuple[Any, JournalHeader]
    as_in_file: bool = False
    in_file: Any = None
    history: History = field(default_factory=History)
    review: ReviewState = field(default_factory=ReviewState)
    is_over: bool = False
    journal: Journal | None = None

    def look(self, folder: Path | None) -> bool:
        """Bring the journal up to date; return whether labels were written."""
        is_over, in_file = self.is_over, self.in_file
        labels, header = self.content
        kind = header.shape, header.dtype
        if self.journal and kind != (self.journal.header.shape, self.journal.header.dtype):
            self.close()
        if self.journal is None:
            self.journal = open_journal(header, folder)
        self.journal.describe(header)
        wrote = self.journal.record(labels) > 0
        # After the labels: an act that they lack can be undone all the same.
        self.journal.keep(self.history, self.review)
        if self.as_in_file:
            self.journal.mark_saved(labels)
            self.as_in_file = False
        if in_file is not None:
            self.journal.mark_saved(in_file)
            if self.in_file is in_file:
                self.in_file = None
        if is_over:
            self.close()
        return wrote

    def close(self) -> None:
        """End the journal, if there is one."""
        journal, self.journal = self.journal, None
        if journal:
            journal.close()


class JournalWriter:
    """Looks at labels in a thread of its own and journals what changed.

    It looks soon after a note and every few seconds without one, and takes no more than
    about a tenth of a core. It ends with `stop` or with the main thread, and writes what
    is painted before it does.

    Parameters
    ----------
    folder : Path or None
        Where the journals lie, instead of `journal_folder`.
    report : callable (note, wrote, error)
        Called in the thread after each look: the newest note it knew of, whether
        it wrote labels, and what failed, or "". The next look tries again.
    """

    def __init__(self, folder: Path | None, report: Callable[[int, bool, str], None]) -> None:
        self._folder = folder
        self._report = report
        self._condition = threading.Condition()
        self._journaled: list[Journaled] = []
        self._newest_note = 0
        self._seen_note = 0
        self._is_hurried = False
        self._is_stopping = False
        self._error = ""
        # Not a daemon: those are cut off in the middle of a write when the program ends.
        self._thread = threading.Thread(target=self._run, name="napari-volseg journal")
        self._thread.start()

    def add(self, journaled: Journaled) -> None:
        """Keep these labels from now on.

        Raises
        ------
        RuntimeError
            After `stop`.
        """
        if self._is_stopping:
            raise RuntimeError("this journal writer was stopped; make another")
        with self._condition:
            self._journaled.append(journaled)
        self.note(hurry=True)

    def note(self, *, hurry: bool = False) -> int:
        """Tell that labels may have changed; return the number of this note."""
        with self._condition:
            self._newest_note += 1
            self._is_hurried |= hurry
            self._condition.notify_all()
            return self._newest_note

    def wait_for(self, note: int, seconds: float) -> bool:
        """Wait for the look that follows a note; False if it failed or takes longer."""
        with self._condition:
            seen = self._condition.wait_for(lambda: self._seen_note >= note, seconds)
            return seen and not self._error

    def stop(self) -> bool:
        """Look a last time, close the journals, end the thread; False if that takes long."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify_all()
        self._thread.join(STOP_SECONDS)
        return not self._thread.is_alive()

    def _run(self) -> None:
        took, is_last = 0.0, False
        while not is_last:
            self._pause(took)
            # Asked before the look, so that the last look comes after the order to stop.
            is_last = self._is_over()
            began = time.perf_counter()
            self._look(is_last)
            took = time.perf_counter() - began

    def _is_over(self) -> bool:
        return self._is_stopping or not threading.main_thread().is_alive()

    def _pause(self, took: float) -> None:
        """Wait for a note, and long enough after the last look not to be a burden."""
        pause = min(max(took / SHARE_OF_A_CORE, SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
        with self._condition:
            self._sleep(pause, lambda: self._is_hurried)
            self._sleep(SECONDS_WITHOUT_NOTE, lambda: self._newest_note > self._seen_note)

    def _sleep(self, seconds: float, is_ready: Callable[[], bool]) -> None:
        end = time.monotonic() + seconds
        while not (is_ready() or self._is_over()) and (left := end - time.monotonic()) > 0:
            # In short naps, because nobody notifies of the end of the main thread.
            self._condition.wait(min(left, NAP_SECONDS))

    def _look(self, is_last: bool) -> None:
        with self._condition:
            note, journaled = self._newest_note, list(self._journaled)
            self._is_hurried = False
        wrote, errors = False, []
        for each in journaled:
            try:
                try:
                    wrote |= each.look(self._folder)
                finally:
                    if is_last:
                        each.close()
            # Whatever it was, the other labels and the next look must not suffer from it.
            except Exception as error:
                errors.append(_reason(error))
                if errors[-1] not in self._error:
                    logger.exception("could not journal %s", each.content[1].name)
        with self._condition:
            self._journaled = [e for e in self._journaled if e.journal or not e.is_over]
            self._seen_note, self._error = note, "; ".join(errors)
            self._condition.notify_all()
        if not is_last:
            self._report(note, wrote, self._error)


def _reason(error: Exception) -> str:
    """Say what failed as the system says it, without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__
