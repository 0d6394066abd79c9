"""Files appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_volseg.data.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` if all went well.

    The temporary name keeps every suffix of ``path`` (writers look at them) and may
    become a file or a folder. On an error it is removed and ``path`` is untouched.

    Raises
    ------
    OSError
        If the folder is missing or not writable.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        yield temporary
        if temporary.is_dir() and path.exists():
            old = path.with_name(f".{uuid.uuid4().hex[:8]}.old.{path.name}")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


@contextmanager
def saving(path: Path) -> Iterator[Path]:
    """Do what ``replacing`` does for a file that a user asked for: tell why it cannot be written.

    Raises
    ------
    InputError
        If the folder is missing or not writable, or the disk is full.
    """
    with telling(path):
        check_folder(path)
        with replacing(path) as temporary:
            yield temporary


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """Turn what the system says of a file that cannot be written into one line that names it.

    Raises
    ------
    InputError
        With the system's error as its cause.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); choose another place"
        ) from error


def check_folder(path: Path) -> None:
    """Refuse a path in a folder that is not there.

    Raises
    ------
    InputError
        If it is not.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path}: cannot be written (no such folder); make the folder first")
