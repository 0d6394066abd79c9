"""A file of records that is only appended to, for the logs of the journal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from napari_volseg.data.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

COMPACT_ABOVE_BYTES = 32 * 1024**2

Place = tuple[int, int]
"""Where a record starts and ends."""


class RecordFile:
    """An open file of records.

    Parameters
    ----------
    path : Path
        Of a file that does not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end = 0
        self._file = open(path, "xb+", buffering=0)

    def append(self, data: bytes) -> Place:
        """Write a record behind the last whole one.

        Raises
        ------
        OSError
            If it cannot be written whole; what was there is as it was.
        """
        start = self._end
        # What a failed write left there would hide all later records from the reader.
        self._file.truncate(start)
        self._file.seek(start)
        if (written := self._file.write(data)) != len(data):
            raise OSError(f"{self._path}: {written} of {len(data)} bytes written; free some disk")
        self._end += len(data)
        return start, self._end

    def read(self, place: Place) -> bytes:
        """Return a record."""
        start, end = place
        self._file.seek(start)
        return self._file.read(end - start)

    def sync(self) -> None:
        """Force what is written to disk."""
        os.fsync(self._file.fileno())

    def is_wasteful(self, live_bytes: int) -> bool:
        """Whether it should be rewritten, if so many bytes of it still count."""
        return self._end > 2 * live_bytes + COMPACT_ABOVE_BYTES

    def rewrite(self, records: Iterable[bytes]) -> list[Place]:
        """Replace the content by these records; they may be read from it meanwhile.

        Raises
        ------
        OSError
            If it cannot be written; what was there is as it was.
        """
        places, end = [], 0
        try:
            with replacing(self._path) as path:
                with open(path, "xb") as file:
                    for data in records:
                        places.append((end, end + len(data)))
                        end += file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                # Windows does not replace an open file.
                self._file.close()
            self._end = end
        finally:
            if self._file.closed:
                self._file = open(self._path, "rb+", buffering=0)
        return places

    def close(self) -> None:
        """Close the file."""
        self._file.close()
