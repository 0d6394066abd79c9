"""A training that many tests compare theirs with, or go on from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from napari_volseg.training.loop import train
from tests.training.test_loop import CONFIG, make_case

if TYPE_CHECKING:
    from napari_volseg.models.checkpoint import Checkpoint
    from napari_volseg.training.events import Progress


@pytest.fixture(scope="session")
def plain() -> list[Progress]:
    """The events of a training of ``CONFIG`` that is told nothing; not to be changed."""
    return list(train(make_case(), CONFIG))


@pytest.fixture(scope="session")
def trained(plain) -> Checkpoint:
    """The end of that training."""
    return plain[-1].checkpoint
