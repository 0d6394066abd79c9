"""The file format of the stroke journal: a log of records that is valid wherever it is cut.

A record carries a checksum and one of: H the header (JSON), B a block of labels
(compressed; the last of each block holds), S "a named file holds all this".
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data.annotation import LabelClass
from napari_volseg.data.errors import InputError
from napari_volseg.data.sparse_labels import block_box
from napari_volseg.data.tiles import box_shape, meet, whole_region

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.sparse_labels import Index

HEADER, LABELS, SAVED = b"H", b"B", b"S"
MAGIC = b"vsj1"
RECORD = struct.Struct("<4scII")
"""Magic, kind, length of the payload, CRC-32 of kind and payload."""
BLOCK = struct.Struct("<4I")
"""Index (z, y, x) of a block and its count of painted voxels; compressed voxels follow."""


OTHER_VERSION = (
    "this journal is damaged or of another version; open it with the version that wrote it, or "
    "delete its folder"
)
UNREADABLE = (KeyError, TypeError, ValueError, struct.error)
"""What reading a whole record of another version may end with."""


@dataclass(frozen=True)
class JournalHeader:
    """What a journal is about.

    Attributes
    ----------
    name : str
        The volume's name, to offer the annotation under.
    shape : (z, y, x)
        Of the labels.
    dtype : str
        Of the labels; any integer type.
    classes : tuple of LabelClass
        The classes painted; may be empty.
    source : str or None
        Path or address of the volume, if known.
    geometry : mapping
        How the labels lie in the world, in JSON's types; only the caller reads it.

    Raises
    ------
    InputError
        For labels that are not a 3D array of integers.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: str
    classes: tuple[LabelClass, ...] = ()
    source: str | None = None
    geometry: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or np.dtype(self.dtype).kind not in "iu":
            raise InputError(
                f"{self.name}: labels of shape {self.shape} and type {self.dtype} cannot be "
                "kept in the journal; paint on a 3D layer of integers"
            )


@dataclass(frozen=True)
class Log:
    """The content of a log: its header, the last payload of each block, if all is saved."""

    header: JournalHeader
    blocks: dict[Index, bytes]
    saved: bool

    def painted_voxels(self) -> int:
        """Return how many voxels are not 0."""
        return sum(int(BLOCK.unpack_from(payload)[3]) for payload in self.blocks.values())

    def put_into(self, labels: AnyLabels) -> None:
        """Put the labels into empty ones of the header's shape and dtype."""
        stored = labels.dtype.newbyteorder("<")
        for index, payload in self.blocks.items():
            if voxels := payload[BLOCK.size :]:
                box = meet(block_box(index), whole_region(labels.shape))
                sides = box_shape(box)
                labels[box] = np.frombuffer(zlib.decompress(voxels), stored).reshape(sides)


def header_record(header: JournalHeader) -> bytes:
    """Return the record of a header."""
    return record(HEADER, json.dumps(asdict(header)).encode())


def block_record(index: Index, block: NDArray[Any] | None) -> bytes:
    """Return the record of a block of labels; None stands for nothing painted."""
    if block is None:
        return record(LABELS, BLOCK.pack(*index, 0))
    voxels = block.astype(block.dtype.newbyteorder("<"), copy=False).tobytes()
    painted = int(np.count_nonzero(block))
    # Level 1: labels are so plain that the higher ones save little and take longer.
    return record(LABELS, BLOCK.pack(*index, painted) + zlib.compress(voxels, 1))


def record(kind: bytes, payload: bytes) -> bytes:
    """Return the bytes of one record."""
    return RECORD.pack(MAGIC, kind, len(payload), zlib.crc32(kind + payload)) + payload


def read_log(path: Path) -> Log | None:
    """Read a log up to its last whole record.

    Returns
    -------
    Log or None
        None if the file is missing or was cut within its first record.

    Raises
    ------
    InputError
        If it is damaged at its beginning, or of another version.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    header: JournalHeader | None = None
    blocks: dict[Index, bytes] = {}
    saved = False
    try:
        for kind, payload in whole_records(data):
            saved = kind == SAVED
            if kind == HEADER:
                header = _read_header(payload)
            elif kind == LABELS:
                z, y, x, _ = BLOCK.unpack_from(payload)
                blocks[z, y, x] = payload
    except UNREADABLE as error:
        raise InputError(f"{path}: {OTHER_VERSION}") from error
    if header is not None:
        return Log(header, blocks, saved)
    if data[: len(MAGIC)] != MAGIC[: len(data)] or MAGIC in data[len(MAGIC) :]:
        raise InputError(f"{path}: {OTHER_VERSION}")
    return None


def whole_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and payload of each record of a log, up to the last whole one."""
    position = 0
    while position + RECORD.size <= len(data):
        magic, kind, length, checksum = RECORD.unpack_from(data, position)
        position += RECORD.size
        payload = data[position : position + length]
        if magic != MAGIC or zlib.crc32(kind + payload) != checksum:
            return
        position += length
        yield kind, payload


def _read_header(payload: bytes) -> JournalHeader:
    values = json.loads(payload)
    values["shape"] = tuple(values["shape"])
    values["classes"] = tuple(LabelClass(**c) for c in values["classes"])
    return JournalHeader(**values)
