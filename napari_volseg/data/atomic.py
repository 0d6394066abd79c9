"""Files appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

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
