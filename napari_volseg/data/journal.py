"""The stroke journal: painted labels are on disk before the user has named any file.

One folder for each session holds a lock, which the system frees however the session
ends, and a log of the labels (`journal_log`), of their history (`history_log`) and of the
review of their objects (`review_state`). What no named file holds is offered again.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
import warnings
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout
from platformdirs import user_data_path

from napari_volseg.data.errors import InputError
from napari_volseg.data.history_log import HistoryLog, read_history
from napari_volseg.data.journal_log import (
    SAVED,
    JournalHeader,
    block_record,
    header_record,
    read_log,
    record,
)
from napari_volseg.data.record_file import Place, RecordFile
from napari_volseg.data.review_state import ReviewLog, ReviewState, read_review
from napari_volseg.data.sparse_labels import BLOCK_SIZE, SparseLabels, block_box

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_volseg.data.history import History
    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.sparse_labels import Index

LOG = "labels.log"
LOCK_SECONDS = 10.0
UNPAINTED = b""


@dataclass(frozen=True)
class Recovery:
    """An annotation that no named file holds, of a session that is over.

    Attributes
    ----------
    folder : Path
        Where its journal lies.
    header : JournalHeader
        What it is about.
    time : datetime
        When it was last written, in local time.
    painted_voxels : int
        How many voxels are not 0.
    reviewed : int
        Of how many objects something was said.
    in_file : bool
        A named file holds the labels, but no file of the user's holds the review.
    """

    folder: Path
    header: JournalHeader
    time: datetime
    painted_voxels: int
    reviewed: int
    in_file: bool

    def labels(self, empty: Callable[..., AnyLabels] = np.zeros) -> AnyLabels:
        """Return the labels, in the header's shape and dtype.

        Parameters
        ----------
        empty : callable (shape, dtype), optional
            Makes what they are put into.

        Raises
        ------
        InputError
            If another window recovered or discarded them meanwhile.
        """
        log = read_log(self.folder / LOG)
        if log is None:
            raise InputError(
                f"the annotation of {self.header.name} is gone: another window recovered or "
                "discarded it; look there"
            )
        labels = empty(self.header.shape, self.header.dtype)
        log.put_into(labels)
        return labels

    def history(self) -> History:
        """Return what can be undone and redone; needed before `discard`."""
        return read_history(self.folder)

    def review(self) -> ReviewState:
        """Return what was said of objects; needed before `discard`."""
        return read_review(self.folder)

    def discard(self) -> None:
        """Remove the journal for good.

        Raises
        ------
        OSError
            If it cannot be removed.
        """
        with _index_lock(self.folder.parent):
            if self.folder.exists():
                shutil.rmtree(self.folder)


class Journal:
    """The open journal of a running session; made by `open_journal`.

    Its methods write files, so they are not for the window's thread; one thread at a time.
    """

    def __init__(self, folder: Path, header: JournalHeader, lock: FileLock) -> None:
        self.folder = folder
        self.header = header
        self._lock = lock
        self._digests: dict[Index, bytes] = {}
        self._places: dict[Index, Place] = {}
        self._saved = False
        self._history = HistoryLog(folder)
        self._review = ReviewLog(folder)
        self._reviewed = self._can_be_undone = False
        self._file = RecordFile(folder / LOG)
        self._file.append(header_record(header))

    def describe(self, header: JournalHeader) -> None:
        """Replace the header: other classes, another name or geometry.

        Raises
        ------
        ValueError
            For another shape or dtype: that is another journal.
        OSError
            If it cannot be written.
        """
        if (header.shape, header.dtype) != (self.header.shape, self.header.dtype):
            raise ValueError(f"{header} does not go with the labels of {self.header}")
        if header != self.header:
            self._file.append(header_record(header))
            self.header = header
            self._saved = False

    def record(self, labels: AnyLabels) -> int:
        """Write the blocks that changed since the last call, and force them to disk.

        The labels may be painted meanwhile: what is missed or half seen is written by
        the next call. Unpainted blocks cost next to nothing.

        Parameters
        ----------
        labels : integer (Z, Y, X), numpy or ``SparseLabels``
            Of the header's shape and dtype.

        Returns
        -------
        int
            Number of blocks written.

        Raises
        ------
        ValueError
            For another shape or dtype: that is another journal.
        OSError
            If the disk is full or gone; the next call writes what this one could not.
        """
        if not self._fits(labels):
            raise ValueError(f"labels {labels.shape} {labels.dtype} are not of {self.header}")
        written: dict[Index, bytes] = {}
        for index, block, digest in self._changes(labels):
            self._places[index] = self._file.append(block_record(index, block))
            written[index] = digest
        if written:
            self._file.sync()
            self._digests |= written
            self._saved = False
            live = sum(end - start for start, end in self._places.values())
            if self._file.is_wasteful(live):
                self._compact()
        return len(written)

    def keep(self, history: History, review: ReviewState) -> None:
        """Write what can be undone, and the review, as far as they changed since the last call.

        Raises
        ------
        OSError
            If the disk is full or gone; the next call writes what this one could not.
        """
        self._history.write(history)
        self._review.write(review)
        self._reviewed = bool(review.kept)
        self._can_be_undone = history.brings_labels_back

    def mark_saved(self, labels: AnyLabels) -> bool:
        """Note that a named file holds ``labels``; nothing is offered until more is painted.

        Returns
        -------
        bool
            False, and the annotation stays on offer, if the journal holds other labels.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        if not self._fits(labels) or next(self._changes(labels), None) is not None:
            return False
        if not self._saved:
            self._file.append(record(SAVED, b""))
            self._file.sync()
            self._saved = True
        return True

    def close(self) -> None:
        """End the session; it stays on offer unless it is empty or a named file holds it.

        What was cleared can be undone, so it is not empty. No file of the user's holds what was
        said of objects.

        Raises
        ------
        OSError
            If what is of no more use cannot be removed.
        """
        self._file.close()
        self._history.close()
        self._review.close()
        try:
            with _index_lock(self.folder.parent):
                self._lock.release()
                unsaved = not self._saved and (any(self._digests.values()) or self._can_be_undone)
                if not self._reviewed and not unsaved:
                    shutil.rmtree(self.folder)
        finally:
            self._lock.release()

    def _fits(self, labels: AnyLabels) -> bool:
        return (labels.shape, labels.dtype) == (self.header.shape, np.dtype(self.header.dtype))

    def _changes(self, labels: AnyLabels) -> Iterator[tuple[Index, NDArray[Any] | None, bytes]]:
        """Yield index, voxels (None: nothing painted) and digest of the changed blocks."""
        if isinstance(labels, SparseLabels):
            yield from self._changes_of_sparse(labels)
            return
        grid = [-(-size // BLOCK_SIZE) for size in labels.shape]
        for z, y, x in np.ndindex(*grid):
            block, digest = None, UNPAINTED
            view = np.asarray(labels[block_box((z, y, x))])
            if view.any():
                # A copy, so that voxels and digest agree though a stroke goes on.
                block = np.array(view, order="C")
                digest = hashlib.blake2b(block.data, digest_size=16).digest()
            if digest != self._digests.get((z, y, x), UNPAINTED):
                yield (z, y, x), block, digest

    def _changes_of_sparse(
        self, labels: SparseLabels
    ) -> Iterator[tuple[Index, NDArray[Any] | None, bytes]]:
        blocks = labels.blocks()
        for index, block in sorted(blocks.items(), key=itemgetter(0)):
            if block.digest != self._digests.get(index, UNPAINTED):
                yield index, block.labels, block.digest
        for index, digest in self._digests.items():
            if digest != UNPAINTED and index not in blocks:
                yield index, None, UNPAINTED

    def _compact(self) -> None:
        """Rewrite the log with the last record of each block only."""
        blocks = (self._file.read(place) for place in self._places.values())
        _, *places = self._file.rewrite(chain([header_record(self.header)], blocks))
        self._places = dict(zip(self._places, places, strict=True))


def journal_folder() -> Path:
    """Return the folder of this user's journals."""
    return user_data_path("napari-volseg", appauthor=False) / "journal"


def open_journal(header: JournalHeader, folder: Path | None = None) -> Journal:
    """Start the journal of a session in which nothing is painted yet.

    Parameters
    ----------
    header : JournalHeader
        What will be recorded.
    folder : Path, optional
        Where the journals lie, instead of `journal_folder`.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    folder = folder or journal_folder()
    folder.mkdir(parents=True, exist_ok=True)
    session = folder / f"{datetime.now():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:8]}"
    with _index_lock(folder):
        session.mkdir()
        lock = _session_lock(session)
        lock.acquire(timeout=0)
        return Journal(session, header, lock)


def recoverable(folder: Path | None = None) -> list[Recovery]:
    """List the annotations that no named file holds, of sessions that are over, newest first.

    Journals with nothing to offer are removed; one that cannot be read is kept and
    warned of. Reads whole files, so it is not for the window's thread.

    Parameters
    ----------
    folder : Path, optional
        Where the journals lie, instead of `journal_folder`.

    Raises
    ------
    OSError
        If the folder cannot be read, or what is of no more use cannot be removed.
    """
    folder = folder or journal_folder()
    if not folder.is_dir():
        return []
    with _index_lock(folder):
        sessions = [path for path in folder.iterdir() if path.is_dir() and not _is_live(path)]
        offers = [offer for session in sessions if (offer := _offer(session))]
    return sorted(offers, key=lambda offer: offer.time, reverse=True)


def _offer(session: Path) -> Recovery | None:
    """Return what a session that is over offers; remove it if that is nothing."""
    try:
        log = read_log(session / LOG)
        reviewed = len(read_review(session).kept)
        painted = 0 if log is None else log.painted_voxels()
        # Its whole history is read only where it decides.
        unsaved = bool(painted) or read_history(session).brings_labels_back
    except InputError as error:
        warnings.warn(str(error), stacklevel=3)
        return None
    if log is None or not (reviewed or (unsaved and not log.saved)):
        shutil.rmtree(session)
        return None
    time = datetime.fromtimestamp(max(path.stat().st_mtime for path in session.glob("*.log")))
    return Recovery(session, log.header, time, painted, reviewed, log.saved)


def _is_live(session: Path) -> bool:
    lock = _session_lock(session)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _session_lock(session: Path) -> FileLock:
    # Not bound to a thread: the one that closes a journal need not have opened it.
    return FileLock(session / "owner.lock", thread_local=False)


def _index_lock(folder: Path) -> FileLock:
    # Held wherever the list of journals changes: one being made is not one that is over.
    return FileLock(folder / "index.lock", timeout=LOCK_SECONDS)
