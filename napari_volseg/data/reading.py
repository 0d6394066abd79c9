"""A guard around the libraries that read files: damage is told in one line."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_volseg.data.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into one line that names the file.

    Raises
    ------
    InputError
        With the library's error as its cause.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # damaged bytes make the libraries raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: damaged, or not what its name says ({reason[:200]}); "
            "save or copy it again from where it came"
        ) from error
