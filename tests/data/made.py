"""Small images for tests of files."""

from __future__ import annotations

import numpy as np


def numbered(shape=(1, 3, 4, 5), dtype="uint16"):
    """Make an image no two voxels of which are equal, and no two axes as long."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)
