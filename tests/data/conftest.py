from __future__ import annotations

import pytest

from napari_volseg.data.errors import InputError
from napari_volseg.data.files import read_annotation, read_volume


@pytest.fixture
def refused():
    """Check that reading a path is refused in one line that names it and has these words."""

    def check(path, *words):
        for read in (read_volume, read_annotation):
            with pytest.raises(InputError) as caught:
                read(path)
            message = str(caught.value)
            assert str(path) in message
            assert "\n" not in message
            assert [word for word in words if word not in message] == []

    return check
