"""The history of an annotation on disk: a log beside that of its labels.

Records are those of `journal_log`: A holds an act under a number, T says by number which acts the
history has; the last T holds. The log is valid wherever it is cut.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict
from itertools import chain, count
from typing import TYPE_CHECKING

from napari_volseg.data.annotation import LabelClass
from napari_volseg.data.errors import InputError
from napari_volseg.data.history import Act, History, Patch
from napari_volseg.data.journal_log import OTHER_VERSION, UNREADABLE, record, whole_records
from napari_volseg.data.record_file import RecordFile

if TYPE_CHECKING:
    from pathlib import Path

    from napari_volseg.data.tiles import Region

HISTORY = "history.log"
ACT, STATE = b"A", b"T"
NUMBERS = struct.Struct("<2I")
"""Of an act: its number and the length of its description (JSON); of a state: its counts."""


class HistoryLog:
    """The open log of a history; one thread at a time.

    Parameters
    ----------
    folder : Path
        The journal's.
    name : str
        Of the file, which does not exist yet.
    """

    def __init__(self, folder: Path, name: str = HISTORY) -> None:
        self._file = RecordFile(folder / name)
        self._written = History()
        self._numbers: dict[Act, int] = {}
        self._next = count()

    def write(self, history: History) -> None:
        """Write what changed since the last call, and force it to disk.

        Raises
        ------
        OSError
            If the disk is full or gone; the next call writes what this one could not.
        """
        if history == self._written:
            return
        acts = (*history.undoable, *history.redoable)
        for act in acts:
            if act not in self._numbers:
                number = next(self._next)
                self._file.append(_act_record(act, number))
                self._numbers[act] = number
        self._numbers = {act: self._numbers[act] for act in acts}
        self._file.append(self._state_record(history))
        self._file.sync()
        self._written = history
        if self._file.is_wasteful(history.size_bytes):
            live = (_act_record(act, number) for act, number in self._numbers.items())
            self._file.rewrite(chain(live, [self._state_record(history)]))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _state_record(self, history: History) -> bytes:
        numbers = [self._numbers[act] for act in (*history.undoable, *history.redoable)]
        counts = NUMBERS.pack(len(history.undoable), len(history.redoable))
        return record(STATE, counts + struct.pack(f"<{len(numbers)}I", *numbers))


def read_history(folder: Path, name: str = HISTORY) -> History:
    """Read the history that a file of a journal's folder holds; an empty one if there is none.

    Raises
    ------
    InputError
        If it is of another version.
    """
    try:
        data = (folder / name).read_bytes()
    except FileNotFoundError:
        return History()
    payloads: dict[int, bytes] = {}
    state = NUMBERS.pack(0, 0)
    try:
        for kind, payload in whole_records(data):
            if kind == ACT:
                payloads[NUMBERS.unpack_from(payload)[0]] = payload
            elif kind == STATE:
                state = payload
        undoable, redoable = NUMBERS.unpack_from(state)
        numbers = struct.unpack_from(f"<{undoable + redoable}I", state, NUMBERS.size)
        acts = tuple(_read_act(payloads[number]) for number in numbers)
    except UNREADABLE as error:
        raise InputError(f"{folder / name}: {OTHER_VERSION}") from error
    return History(acts[:undoable], acts[undoable:])


def _act_record(act: Act, number: int) -> bytes:
    objects = (*act.said, *act.unsaid)
    patches = (*act.patches, *act.marks, *chain.from_iterable(one.patches for one in objects))
    description = {
        "name": act.name,
        "dtype": act.dtype,
        "classes": None if act.classes is None else [asdict(c) for c in act.classes],
        "boxes": [[(side.start, side.stop) for side in p.box] for p in patches],
        "bytes": [len(p.voxels) for p in patches],
        "marks": len(act.marks),
        "said": [(one.name, one.dtype, len(one.patches)) for one in act.said],
        "unsaid": [(one.name, one.dtype, len(one.patches)) for one in act.unsaid],
    }
    text = json.dumps(description).encode()
    voxels = b"".join(p.voxels for p in patches)
    return record(ACT, NUMBERS.pack(number, len(text)) + text + voxels)


def _read_act(payload: bytes) -> Act:
    _, length = NUMBERS.unpack_from(payload)
    position = NUMBERS.size + length
    description = json.loads(payload[NUMBERS.size : position])
    patches = []
    for box, size in zip(description["boxes"], description["bytes"], strict=True):
        patches.append(Patch(_read_box(box), payload[position : position + size]))
        position += size
    # A version that knew neither marks nor objects wrote no count of them: all are labels.
    unsaid = _take_objects(patches, description.get("unsaid", []))
    said = _take_objects(patches, description.get("said", []))
    classes, labels = description["classes"], len(patches) - description.get("marks", 0)
    return Act(
        description["name"],
        description["dtype"],
        tuple(patches[:labels]),
        None if classes is None else tuple(LabelClass(**c) for c in classes),
        tuple(patches[labels:]),
        said,
        unsaid,
    )


def _take_objects(patches: list[Patch], described: list[tuple[str, str, int]]) -> tuple[Act, ...]:
    """Take the patches of objects from the end of a list."""
    objects = []
    for name, dtype, many in reversed(described):
        start = len(patches) - many
        objects.append(Act(name, dtype, tuple(patches[start:])))
        del patches[start:]
    return tuple(reversed(objects))


def _read_box(sides: list[tuple[int, int]]) -> Region:
    z, y, x = (slice(start, stop) for start, stop in sides)
    return z, y, x
